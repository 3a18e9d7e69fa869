# services.hapi-backup-storage: the side that receives. Each hub has a user that can add files to its own folder and
# nothing else; scrub, retain and watch run as another user.
{ self }:
{ config, lib, pkgs, utils, ... }:
let
  cfg = config.services.hapi-backup-storage;
  inherit (lib) mkDefault mkIf mkOption types;
  units = import ./units.nix { inherit lib; };
  json = pkgs.formats.json { };
  user = "hapi-backup-storage";
  rrsync = "${pkgs.rrsync or pkgs.rsync}/bin/rrsync";
  ofHub = name: hub: {
    inherit (hub) signers maxAgeHours user;
  } // lib.optionalAttrs (hub.quotaBytes != null) { inherit (hub) quotaBytes; } // hub.settings;
  settings = cfg.settings // { hubs = lib.mapAttrs ofHub cfg.hubs; };
  hubs = lib.mapAttrsToList (name: hub: hub // { inherit name; }) cfg.hubs;
  folderOf = hub: "${settings.store}/${hub.name}";
  keyLine = hub: options: key:
    "restrict,command=\"${rrsync} ${options} ${folderOf hub}\""
    + lib.optionalString (hub.from != [ ]) ",from=\"${lib.concatStringsSep "," hub.from}\"" + " ${key}";

  configFile = pkgs.runCommand "hapi-backup-storage.json"
    {
      json = builtins.toJSON settings;
      passAsFile = [ "json" ];
    } ''
    export HOME=$TMPDIR
    ${lib.concatMapStrings (hub: ''
      printf '%s\n' ${lib.escapeShellArg hub.writeKey} > key.pub
      ${lib.getExe cfg.package} storage authorize --config "$jsonPath" --hub ${lib.escapeShellArg hub.name} --key "$PWD/key.pub" > checked || { cat checked; exit 1; }
    '') hubs}
    cp "$jsonPath" $out
  '';

  fill = {
    texts = units.defaults // {
      inherit user;
      inherit (settings) store;
      state = settings.stateFolder;
      config = "${configFile}";
    };
    lists = {
      program = [ ]; # the store is in view
      alarm = units.rows "unit" cfg.onFailure;
      credential = lib.optional (settings ? receiptKeyFile) { name = "receipt-key"; file = toString settings.receiptKeyFile; };
      metrics = lib.optional (cfg.watch.prometheusFile != null) { folder = builtins.dirOf cfg.watch.prometheusFile; };
      drillLog = units.rows "file" (map (hub: units.bindable hub.settings.drillLogFile)
        (lib.filter (hub: hub.settings ? drillLogFile) hubs));
    };
  };
  command = extraArgs: args: utils.escapeSystemdExecArgs ([ (lib.getExe cfg.package) ] ++ args ++ [ "--config" "${configFile}" ] ++ extraArgs);
  jobs = {
    scrub = cfg.scrub.extraArgs;
    retain = cfg.retain.extraArgs;
    watch = lib.optionals (cfg.watch.prometheusFile != null) [ "--prometheus" cfg.watch.prometheusFile ] ++ cfg.watch.extraArgs;
  };

  isKey = text: builtins.match "ssh-ed25519 [A-Za-z0-9+/=]+( [^\n]*)?" text != null;
  isInStore = path: path != null && lib.hasPrefix "${builtins.storeDir}/" (toString path);
  keyOption = text: extra: mkOption ({
    type = types.nullOr types.str;
    default = null;
    example = "ssh-ed25519 AAAA... hapi-backup@home";
    description = text;
  } // extra);
  jobOptions = verb: what: {
    timerConfig = mkOption {
      type = types.nullOr (types.attrsOf types.unspecified);
      default = { };
      description = ''
        When ${what}: settings of {manpage}`systemd.timer(5)`, which go over the defaults of {file}`nix/units.json` one by
        one. `null` makes no timer.
      '';
    };
    extraArgs = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "More arguments of `hapi-backup ${verb}`.";
    };
  };
in
{
  options.services.hapi-backup-storage = {
    enable = lib.mkEnableOption ''
      the storage host of hapi-backup. Give the store a file system that keeps snapshots and checksums of its own: with ZFS
      a dataset per hub with `quota`, `compression=off` (what comes is compressed and encrypted) and periodic
      `zfs snapshot`s that the hubs cannot touch; with btrfs a subvolume per hub with a qgroup limit and read-only
      snapshots. Let the pool's own scrub run monthly: this one reads files, not the disks' spare copies'';
    package = mkOption {
      type = types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = lib.literalExpression "hapi-backup.packages.\${system}.default";
      description = "The hapi-backup to run.";
    };
    hubs = mkOption {
      type = types.attrsOf (types.submodule ({ name, ... }: {
        options = {
          writeKey = keyOption "Public SSH key with which hub ${name} may add files: no delete, no overwrite, no reading, no shell." { };
          readKey = keyOption "Public SSH key with which hub ${name}'s snapshots may be read, for restores and receipts; none by default." { };
          signers = mkOption {
            type = types.listOf types.str;
            default = [ ];
            example = [ "ssh-ed25519 AAAA... signing@home" ];
            description = "Public keys of `services.hapi-backup.signingKeyFile` on that hub, old ones included: whose snapshots count.";
          };
          from = mkOption {
            type = types.listOf types.str;
            default = [ "100.64.0.0/10" "fd7a:115c:a1e0::/48" ];
            description = "Addresses that both keys may come from; by default those of a tailnet. An empty list lets them come from anywhere.";
          };
          user = mkOption {
            type = types.str;
            default = "hapi-${name}";
            defaultText = lib.literalExpression ''"hapi-<name>"'';
            description = "The system user that this hub logs in as.";
          };
          maxAgeHours = mkOption {
            type = types.attrsOf types.ints.positive;
            default = { state = 26; voice = 192; };
            description = "For each set, how old its newest good snapshot may become before `watch` alarms.";
          };
          quotaBytes = mkOption {
            type = types.nullOr types.ints.positive;
            default = null;
            example = 200000000000;
            description = "Space that this hub may take, in bytes. `watch` tells from nine tenths of it on; it is the file system that enforces it: set the same there.";
          };
          settings = mkOption {
            type = json.type;
            default = { };
            description = "More keys of `hubs.${name}` in the configuration file, such as `retention`; `hapi-backup storage schema` lists them.";
          };
        };
      }));
      default = { };
      description = "The hubs that may send backups here.";
    };
    settings = mkOption {
      type = json.type;
      default = { };
      example = { timeZone = "Europe/Berlin"; retention.keepDaily = 90; };
      description = "The configuration file, key by key: `hapi-backup storage schema` lists them. It is checked when the system is built.";
    };
    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to let SSH in on `interface`, and there only: sshd's own opening on every interface is turned off.";
    };
    interface = mkOption {
      type = types.str;
      default = "tailscale0";
      description = "The interface that `openFirewall` opens.";
    };
    onFailure = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "mail@%n.service" ];
      description = "Units to start when scrub finds damage, retain refuses, or watch finds something too old.";
    };
    createWrapper = mkOption {
      type = types.bool;
      default = true;
      description = "Whether to put `hapi-backup` on the system's path; run it as ${user}.";
    };
    scrub = jobOptions "scrub" "the store is read again";
    retain = jobOptions "retain" "what the policy does not keep is removed";
    watch = jobOptions "watch" "the store is compared with its limits" // {
      prometheusFile = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "/var/lib/prometheus-node-exporter/hapi_backup.prom";
        description = "Where metrics go for node_exporter's textfile collector; ${user} must be able to write in that folder.";
      };
    };
  };

  config = mkIf cfg.enable {
    services.hapi-backup-storage.settings = {
      store = mkDefault "/var/lib/hapi-backup-store";
      stateFolder = mkDefault "/var/lib/hapi-backup-storage";
      inherit rrsync;
    };
    services.tailscale.enable = mkDefault true;
    services.openssh = {
      enable = true;
      openFirewall = mkIf cfg.openFirewall (mkDefault false);
    };
    networking.firewall.interfaces = mkIf cfg.openFirewall {
      ${cfg.interface}.allowedTCPPorts = config.services.openssh.ports;
    };

    assertions = [
      {
        assertion = cfg.hubs != { };
        message = "services.hapi-backup-storage.hubs is empty: nobody could send anything. Name a hub, such as hubs.home.writeKey = \"ssh-ed25519 ...\".";
      }
      {
        assertion = !(isInStore (settings.receiptKeyFile or null));
        message = "services.hapi-backup-storage.settings.receiptKeyFile is ${toString (settings.receiptKeyFile or "")}, in the Nix store, where every user of the machine can read it: give a path outside the store as a string, such as one that sops-nix or agenix makes.";
      }
      {
        assertion = !(cfg.settings ? hubs);
        message = "services.hapi-backup-storage.settings.hubs would be overwritten: use services.hapi-backup-storage.hubs.<name>.settings.";
      }
    ] ++ lib.concatMap
      (hub:
        let option = "services.hapi-backup-storage.hubs.${hub.name}"; in [
          {
            assertion = hub.writeKey != null;
            message = "${option}.writeKey is not set: the hub could not send anything. Give the public half of its SSH key (the .pub file of services.hapi-backup.destinations.*.identityFile there).";
          }
          {
            assertion = lib.all isKey (lib.filter (key: key != null) ([ hub.writeKey hub.readKey ] ++ hub.signers));
            message = "${option}: a key is not of the form `ssh-ed25519 AAAA... comment`. Give public keys, whole and without options.";
          }
          {
            assertion = hub.writeKey != hub.readKey || hub.writeKey == null;
            message = "${option}.readKey is the writeKey: sshd would use the first line only, and a hub that is taken over could read its backups. Make a second key.";
          }
          {
            assertion = hub.signers != [ ];
            message = "${option}.signers is empty: no snapshot could be told from a forged one. Give the public half of services.hapi-backup.signingKeyFile on the hub.";
          }
          {
            assertion = hub.maxAgeHours != { };
            message = "${option}.maxAgeHours is empty: nobody would notice that backups stopped. Give a limit for each set, such as { state = 26; }.";
          }
          {
            assertion = hub.quotaBytes != null;
            message = "${option}.quotaBytes is not set: a hub that is taken over could fill the disk for all. Give a limit in bytes, and set the same in the file system.";
          }
        ])
      hubs
    ++ map
      (path: {
        assertion = units.isPlain path;
        message = "services.hapi-backup-storage: the path ${path} would need quoting: use letters, digits and . _ - / only.";
      })
      ([ settings.store settings.stateFolder ] ++ map (row: row.file) fill.lists.credential);

    users.users = lib.mkMerge ([
      { ${user} = { isSystemUser = true; group = user; }; }
    ] ++ map
      (hub: {
        ${hub.user} = {
          isSystemUser = true;
          group = hub.user;
          # sshd runs a forced command by the user's shell.
          useDefaultShell = true;
          openssh.authorizedKeys.keys = lib.optional (hub.writeKey != null) (keyLine hub "-wo -no-del -no-overwrite" hub.writeKey)
            ++ lib.optional (hub.readKey != null) (keyLine hub "-ro" hub.readKey);
        };
      })
      hubs);
    users.groups = lib.mkMerge ([{ ${user} = { }; }] ++ map (hub: { ${hub.user} = { }; }) hubs);
    systemd.services = lib.mkMerge ([{
      # No rule for tmpfiles: that would make them on the root disk when the store's is not mounted, and every hub would
      # send all of its backups there.
      hapi-backup-folders = {
        description = "hapi-backup: the hubs' folders in the store";
        wantedBy = [ "multi-user.target" ];
        before = map (verb: "hapi-backup-${verb}.service") (lib.attrNames jobs);
        # A hub's folder may be a file system of its own, for its quota.
        unitConfig.RequiresMountsFor = [ settings.store ] ++ map folderOf hubs;
        serviceConfig = {
          Type = "oneshot";
          SyslogIdentifier = "hapi-backup";
          RemainAfterExit = true;
          ExecStart = map (args: utils.escapeSystemdExecArgs ([ "${pkgs.coreutils}/bin/install" "-d" ] ++ args))
            ([ [ "-o" "root" "-g" "root" "-m" "0755" settings.store ] ]
              ++ map (hub: [ "-o" hub.user "-g" user "-m" "2770" (folderOf hub) ]) hubs);
        };
      };
    }] ++ lib.mapAttrsToList (kind: extraArgs: units.service { inherit kind fill; command = command extraArgs; }) jobs);
    systemd.timers = lib.mkMerge (map (kind: units.timer { inherit kind fill; calendar = kind; inherit (cfg.${kind}) timerConfig; }) (lib.attrNames jobs));
    systemd.tmpfiles.rules = units.folders "storage" fill;
    environment.etc."hapi-backup/storage.json".source = configFile;
    environment.systemPackages = mkIf cfg.createWrapper [ cfg.package ];
  };
}
