# Two machines, for real: a hub that is written to, and a storage host. Run it where there are nixpkgs and KVM:
# `nix build .#checks.x86_64-linux.vm -L`.
{ self, pkgs }:
let
  package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
  # For this test only. In the repository, because the modules want the public halves when they are evaluated.
  keys = ./vm-keys;
  line = name: pkgs.lib.fileContents (keys + "/${name}");
  # Lays keys where only root reads them, before any service starts.
  laidOut = names: [ "d /etc/hapi-keys 0755 root root -" ]
    ++ map (name: "C /etc/hapi-keys/${name} 0600 root root - ${keys}/${name}") names;
in
pkgs.testers.runNixOSTest {
  name = "hapi-backup";

  nodes = {
    hub = { pkgs, ... }: {
      imports = [ self.nixosModules.hub ];
      users.users.op = { isNormalUser = true; uid = 1000; home = "/home/op"; linger = true; };
      # What stands for a hub that the operator's own manager starts.
      systemd.user.services.hapi-runner.serviceConfig = { Type = "oneshot"; ExecStart = "${pkgs.coreutils}/bin/true"; };
      environment.systemPackages = [ pkgs.sqlite pkgs.openssh ];
      systemd.tmpfiles.rules = laidOut [ "signing" "write" "read" ]
        ++ [ "f /etc/hapi-keys/known_hosts 0644 root root - storage ${line "host.pub"}" ];
      # What stands for the hub: it holds the database open and writes a row every tenth of a second.
      systemd.services.hapi-hub = {
        wantedBy = [ "multi-user.target" ];
        path = [ pkgs.sqlite ];
        serviceConfig = {
          User = "op";
          ExecStart = pkgs.writeShellScript "hub" ''
            mkdir -p /home/op/.hapi
            { echo "pragma journal_mode=wal; create table if not exists sessions(id integer primary key, text);"
              while sleep 0.1; do echo "insert into sessions(text) values (hex(randomblob(500)));"; done
            } | sqlite3 /home/op/.hapi/hapi.db
          '';
        };
      };
      systemd.services."alarm@".serviceConfig = { Type = "oneshot"; ExecStart = "${pkgs.coreutils}/bin/touch /run/alarm-%i"; };
      services.hapi-backup = {
        enable = true;
        user = "op";
        recipients = [ (line "recipient") ];
        signingKeyFile = "/etc/hapi-keys/signing";
        destinations = [{
          kind = "rsync";
          name = "storage";
          target = "hapi-hub@storage:";
          identityFile = "/etc/hapi-keys/write";
          readIdentityFile = "/etc/hapi-keys/read";
          knownHostsFile = "/etc/hapi-keys/known_hosts";
        }];
        settings.signers = [ (line "signing.pub") ];
        onFailure = [ "alarm@%N.service" ];
        beforeUserUnits = [ "hapi-runner.service" ];
      };
    };
    storage = { ... }: {
      imports = [ self.nixosModules.storage ];
      systemd.tmpfiles.rules = laidOut [ "host" ];
      services.openssh.hostKeys = [{ type = "ed25519"; path = "/etc/hapi-keys/host"; }];
      # The two machines share a plain network here: it stands for the tailnet.
      services.tailscale.enable = false;
      services.hapi-backup-storage = {
        enable = true;
        openFirewall = true;
        interface = "eth1";
        hubs.hub = {
          writeKey = line "write.pub";
          readKey = line "read.pub";
          signers = [ (line "signing.pub") ];
          from = [ "192.168.1.0/24" "2001:db8:1::/64" ];
          quotaBytes = 1000000000;
        };
      };
    };
  };

  testScript = ''
    start_all()
    hub.wait_for_unit("multi-user.target")
    storage.wait_for_unit("sshd.service")
    storage.wait_for_unit("hapi-backup-folders.service")
    hub.wait_until_succeeds("sqlite3 /home/op/.hapi/hapi.db 'select count(*) from sessions' | grep -q '[1-9]'")

    with subtest("a snapshot of the live database is taken, and shipped after it"):
        hub.succeed("systemctl start hapi-backup-state.service")
        hub.wait_until_succeeds("systemctl show -p Result --value hapi-backup-ship.service | grep -qx success")
        storage.wait_until_succeeds("ls /var/lib/hapi-backup-store/hub/state/*/seal.json")

    with subtest("nothing on the storage host is plaintext"):
        storage.fail("grep -rlaE 'SQLite format 3|create table' /var/lib/hapi-backup-store")

    with subtest("the hub's key can neither read nor remove"):
        ssh = "rsync -e 'ssh -i /etc/hapi-keys/write -o UserKnownHostsFile=/etc/hapi-keys/known_hosts'"
        hub.fail(f"{ssh} -r hapi-hub@storage:state /tmp/stolen")
        hub.fail(f"mkdir -p /tmp/empty && {ssh} -r --delete /tmp/empty/ hapi-hub@storage:state/")

    with subtest("a ship that is killed sends the rest later, without a new snapshot"):
        storage.succeed("systemctl stop sshd.service")
        hub.succeed("systemctl start hapi-backup-state.service")
        hub.succeed("systemctl kill -s KILL hapi-backup-ship.service || true")
        storage.succeed("systemctl start sshd.service")
        hub.succeed("systemctl reset-failed hapi-backup-ship.service; systemctl restart hapi-backup-ship.service")
        assert int(storage.succeed("ls /var/lib/hapi-backup-store/hub/state/*/seal.json | wc -l")) == 2

    with subtest("a snapshot is taken before the hub starts, and the hub starts when that fails"):
        hub.succeed("systemctl restart hapi-hub.service")
        hub.succeed("journalctl -u hapi-backup-state-before-start.service | grep -q 'stored'")
        hub.succeed("rm -f /run/alarm-*; mv /etc/hapi-keys/signing /etc/hapi-keys/gone && systemctl restart hapi-hub.service")
        hub.succeed("systemctl is-active hapi-hub.service")
        hub.wait_until_succeeds("ls /run/alarm-hapi-backup-state-before-start*")
        hub.succeed("mv /etc/hapi-keys/gone /etc/hapi-keys/signing")

    with subtest("the operator's own manager gets its snapshot from the system's"):
        seals = "ls /var/lib/hapi-backup/store/hub/state/*/seal.json | wc -l"
        known = int(hub.succeed(seals))
        hub.wait_for_unit("user@1000.service")
        hub.succeed("su op -c 'XDG_RUNTIME_DIR=/run/user/1000 systemctl --user start hapi-runner.service'")
        assert int(hub.succeed(seals)) == known + 1

    with subtest("the storage host reads everything, and finds nothing wrong"):
        storage.succeed("systemctl start hapi-backup-scrub.service")
        storage.succeed("systemctl start hapi-backup-retain.service")

    with subtest("the storage host alarms when its clock says that nothing has come for too long"):
        storage.succeed("systemctl stop systemd-timesyncd.service; date -s '+3 days'")
        storage.fail("systemctl start hapi-backup-watch.service")
        storage.succeed("date -s '-3 days'")

    with subtest("what was lost comes back from the storage host"):
        hub.succeed("systemctl stop hapi-hub.service")
        rows = int(hub.succeed("sqlite3 /home/op/.hapi/hapi.db 'select count(*) from sessions'"))
        hub.succeed("systemctl start hapi-backup-state.service && systemctl start hapi-backup-ship.service")
        hub.succeed("rm -rf /home/op/.hapi /var/lib/hapi-backup")
        hub.succeed(
            "install -d -m 0700 /root/drill && HOME=/root ${package}/bin/hapi-backup restore --to /root/back"
            " --store hapi-hub@storage: --hub-name hub --ssh-key /etc/hapi-keys/read"
            " --known-hosts /etc/hapi-keys/known_hosts --identity ${keys}/identity --signer ${keys}/signing.pub"
        )
        back = int(hub.succeed("sqlite3 /root/back/home/.hapi/hapi.db 'select count(*) from sessions'"))
        assert back == rows, f"{back} rows came back of {rows}"
  '';
}
