import assert from "node:assert/strict";
import { generateIdentity } from "../../scripts/host/keys/identity.ts";
import { cli } from "../real/cli.ts";
import { newKey } from "../real/sshd.ts";
import { type Lab, makeLab, USERS, WAITING } from "./lab/lab.ts";
import { output, ROOT } from "./nix.ts";

const VERBS = ["scrub", "retain", "watch"] as const;

/** What a unit can do, told by a program in its place. Nothing is changed, so that the next one finds the same. */
const PROBE = `can() { if "\${@:2}" >/dev/null 2>&1; then echo "can $1"; fi; }
can "make a socket" python3 -c 'import socket; socket.socket(socket.AF_INET)'
can "read a part" sh -c 'cat /var/lib/store/home/state/*/seal.json'
can "change a part" sh -c ': >> $(echo /var/lib/store/home/state/*/seal.json)'
can "write a receipt" sh -c ': >> /var/lib/store/home/.receipt.json'
can "write the ledger" touch /var/lib/hapi-backup-storage
can "read the receipts' key" grep -q PRIVATE /var/lib/keys/receipt
can "write elsewhere" touch /var/lib/log/x
echo probed`;

/** Puts a real snapshot into the store as it arrives: owned by the hub's user, readable by nobody else. */
async function receive(lab: Lab): Promise<{ readonly signer: string }> {
  const home = `${lab.folder}/hub`;
  await Deno.mkdir(`${home}/.hapi`, { recursive: true });
  await output("sqlite3", [
    `${home}/.hapi/hapi.db`,
    "create table sessions(id); insert into sessions values (1)",
  ]);
  await newKey(`${home}/signing`);
  const { recipient } = await generateIdentity();
  const config = {
    hub: "home",
    recipients: [recipient],
    signingKeyFile: `${home}/signing`,
    store: `${home}/store`,
  };
  await Deno.writeTextFile(`${home}/config.json`, JSON.stringify(config));
  const { code, stderr } = await cli({ home }, "backup", "--no-ship", "--config", `${home}/config.json`);
  assert.equal(code, 0, stderr);
  const hub = `${USERS["hapi-home"]}`;
  await Deno.mkdir(`${lab.lib}/store/home`, { recursive: true });
  await Deno.rename(`${home}/store/home/state`, `${lab.lib}/store/home/state`);
  await output("chown", ["-R", `${hub}:${hub}`, `${lab.lib}/store/home`]);
  await output("chmod", ["-R", "go=", `${lab.lib}/store/home`]);
  return { signer: await Deno.readTextFile(`${home}/signing.pub`) };
}

Deno.test("units, for real: a storage host's read, prune and watch what a hub's user owns; each can do its own and no more", async () => {
  await using lab = await makeLab();
  const { signer } = await receive(lab);
  await Deno.mkdir(`${lab.lib}/keys`);
  await newKey(`${lab.lib}/keys/receipt`);
  await Deno.writeTextFile(
    `${lab.lib}/storage.json`,
    JSON.stringify({
      store: "/var/lib/store",
      receiptKeyFile: "/var/lib/keys/receipt",
      hubs: { home: { signers: [signer], maxAgeHours: { state: 26 } } },
    }),
  );
  await Deno.writeTextFile(`${lab.lib}/probe.sh`, PROBE);
  const out = await lab.run(`${WAITING}
    chmod 600 /var/lib/keys/*; install -d -o hapi-backup-storage /var/lib/metrics
    HOME=/root program systemd --system --storage --config /var/lib/storage.json \
      --prometheus /var/lib/metrics/hapi.prom --on-failure alarm@%N.service --to ${lab.folder}/units
    for verb in ${VERBS.join(" ")}; do
      sed 's#^ExecStart=.*#ExecStart=/bin/bash /var/lib/probe.sh#' ${lab.folder}/units/hapi-backup-$verb.service > ${lab.folder}/units/probe-$verb.service
    done
    systemctl daemon-reload
    HOME=/root program scrub --config /var/lib/storage.json
    stat -c 'first made by %U' /var/lib/hapi-backup-storage/scrub.lock
    systemd-tmpfiles --create ${lab.folder}/units/hapi-backup-storage.conf
    install -d -o hapi-home -g hapi-backup-storage -m 2770 /var/lib/store/home
    for verb in ${VERBS.join(" ")}; do systemctl start hapi-backup-$verb.service; echo "$verb: $?"; done
    stat -c '%U %a %n' /var/lib/store/home/.receipt.json /var/lib/metrics/hapi.prom
    grep -q ^hapi_backup_ /var/lib/metrics/hapi.prom && echo measured
    for verb in ${VERBS.join(" ")}; do systemctl start probe-$verb.service; done
    echo x >> $(echo /var/lib/store/home/state/*/hapi.db.full.zst.age)
    systemctl start hapi-backup-scrub.service; echo "damaged: $?"
    said alarms hapi-backup-scrub; cat /var/lib/log/alarms ||
      { systemctl list-jobs; systemctl status --no-pager hapi-backup-scrub alarm@hapi-backup-scrub; }`);

  // Who has just set the host up may try a verb by hand, before its units are installed.
  assert.match(out, /^first made by root$/m);
  // The program lies in a home that is closed to their user, and yet they see it.
  assert.doesNotMatch(out, /may not enter/);
  for (const verb of VERBS) {
    assert.match(
      out,
      new RegExp(`^${verb}: 0$`, "m"),
      `${out}\n${await lab.log(`hapi-backup-${verb}.service`)}`,
    );
  }
  // The hub's user reads the one, node_exporter the other.
  assert.match(out, /^hapi-backup-storage 644 \/var\/lib\/store\/home\/\.receipt\.json$/m);
  assert.match(out, /^hapi-backup-storage 644 \/var\/lib\/metrics\/hapi\.prom$/m);
  assert.match(out, /^measured$/m);
  const can = async (verb: string) =>
    (await lab.log(`probe-${verb}.service`)).trim().split("\n").map((line) => line.replace("can ", ""));
  assert.deepEqual(await can("scrub"), [
    "read a part",
    "write a receipt",
    "write the ledger",
    "read the receipts' key",
    "probed",
  ]);
  assert.deepEqual(await can("retain"), [
    "read a part",
    "change a part",
    "write a receipt",
    "write the ledger",
    "probed",
  ]);
  assert.deepEqual(await can("watch"), ["read a part", "write the ledger", "probed"]);
  assert.match(out, /^damaged: 1$/m);
  assert.match(out, /^failed: hapi-backup-scrub$/m);
});

Deno.test("units, for real: NixOS makes the hubs' folders on the store's own disk, and nowhere while that is not mounted", async () => {
  await using lab = await makeLab();
  const unit = await Deno.readTextFile(`${ROOT}/tests/golden/units/hapi-backup-folders.service`);
  await lab.writeUnit("hapi-backup-folders.service", unit.replaceAll("/hapi-backup-store", "/store"));
  const mount = (options: string) =>
    `[Mount]\nWhat=tmpfs\nType=tmpfs\nWhere=/var/lib/store\nOptions=${options}\n`;
  await lab.writeUnit("var-lib-store.mount", mount("size=nonsense"));
  const out = await lab.run(`
    systemctl start hapi-backup-folders.service; echo "not mounted: $?"
    ls /var/lib/store
    printf '${mount("mode=700").replaceAll("\n", "\\n")}' > ${lab.folder}/units/var-lib-store.mount
    systemctl daemon-reload; systemctl reset-failed
    systemctl start hapi-backup-folders.service; echo "mounted: $?"
    stat -c '%U %G %a %n' /var/lib/store /var/lib/store/home; findmnt -no FSTYPE --target /var/lib/store/home`);
  assert.match(out, /^not mounted: 1\nmounted: 0\n/m, out);
  assert.match(
    out,
    /^root root 755 \/var\/lib\/store\nhapi-home hapi-backup-storage 2770 \/var\/lib\/store\/home\ntmpfs$/m,
  );
});
