import assert from "node:assert/strict";
import { give, makeHubLab, MAY, probe, tried, verified } from "./lab/hub_lab.ts";
import { USERS } from "./lab/lab.ts";
import { output, ROOT } from "./nix.ts";

Deno.test("units, for real: the operator's own manager backs up and ships without root, behind the same walls", async () => {
  await using machine = await makeHubLab("user");
  const { lab } = machine;
  await Deno.mkdir(`${lab.home}/.hapi`);
  await output("sqlite3", [
    `${lab.home}/.hapi/hapi.db`,
    "create table sessions(id); insert into sessions values (1)",
  ]);
  await Deno.writeTextFile(`${lab.home}/.hapi/hub.env`, "KEY=secret");
  await Deno.writeTextFile(`${lab.lib}/probe.sh`, probe(machine));
  const units = `${lab.home}/.config/systemd/user`;
  await Deno.mkdir(units, { recursive: true });
  for await (const { name } of Deno.readDir(`${lab.folder}/units`)) {
    if (name.startsWith("hapi-backup")) await Deno.rename(`${lab.folder}/units/${name}`, `${units}/${name}`);
  }
  for (const [name, unit] of [["backup", "state"], ["ship", "ship"]]) {
    const text = await Deno.readTextFile(`${units}/hapi-backup-${unit}.service`);
    await Deno.writeTextFile(
      `${units}/probe-${name}.service`,
      text.replace(/^(On|Restart).*\n/gm, "")
        .replace(
          /^ExecStart=.*$/m,
          `ExecStart=/bin/bash /var/lib/probe.sh\nStandardOutput=append:/home/op/${name}.log`,
        ),
    );
  }
  await lab.writeUnit(
    "user.service",
    `[Service]
User=op
Delegate=yes
Environment=XDG_RUNTIME_DIR=/run/user/${USERS.op} SYSTEMD_UNIT_PATH=/home/op/.config/systemd/user:${ROOT}/tests/nix/lab/targets
ExecStart=/lib/systemd/systemd --user --unit=basic.target
`,
  );
  await give(lab.home);
  const out = await lab.run(`
    install -d -m 700 -o op /run/user/${USERS.op}
    systemctl start user.service
    as() { setpriv --reuid op --regid op --clear-groups env HOME=/home/op XDG_RUNTIME_DIR=/run/user/${USERS.op} "$@"; }
    systemctl() { as systemctl --user "$@"; }
    for i in $(seq 600); do systemctl is-active --quiet basic.target 2>/dev/null && break; sleep 0.1; done
    as systemd-tmpfiles --user --create /home/op/.config/systemd/user/hapi-backup.conf; echo "tmpfiles: $?"
    systemctl start hapi-backup-state.service; echo "backup: $?"
    systemctl start hapi-backup-ship.service; echo "ship: $?"
    for name in backup ship; do systemctl start probe-$name.service; echo "probe: $?"; done
    echo "--- what succeeds does not count, while the timer keeps the unit from being forgotten"
    cd /home/op/.config/systemd/user; mkdir hapi-backup-ship.service.d hapi-backup-ship-done.service.d
    printf '[Unit]\\nStartLimitBurst=3\\n[Service]\\nExecStart=\\nExecStart=/bin/true\\n' > hapi-backup-ship.service.d/fast.conf
    printf '[Service]\\nExecStartPost=/bin/sh -c "echo >> /home/op/done"\\n' > hapi-backup-ship-done.service.d/tell.conf
    systemctl daemon-reload; systemctl start hapi-backup-ship.timer
    for i in 1 2 3 4 5; do
      systemctl start hapi-backup-ship.service; echo "again: $?"
      for j in $(seq 600); do [ "$(cat /home/op/done 2>/dev/null | wc -l)" -ge $i ] && break; sleep 0.1; done
    done
    command systemctl kill -s KILL user.service`);
  assert.match(out, /^backup: 0$/m, out);
  assert.match(out, /^ship: 0$/m, out);
  assert.doesNotMatch(out, /^(tmpfiles|probe): [^0]/m);
  assert.deepEqual(out.match(/again: \d/g), Array(5).fill("again: 0"), out);
  await verified(machine.far, machine.identityFile);
  for (const name of ["backup", "ship"] as const) {
    assert.deepEqual(tried(await Deno.readTextFile(`${lab.home}/${name}.log`)), MAY[name]);
  }
});
