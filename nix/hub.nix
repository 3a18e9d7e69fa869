# services.hapi-backup: the hub's side. Per set one unit that takes the snapshot and encrypts it, without a network; one
# unit that ships, and sees ciphertext only.
{ self }:
{ config, lib, pkgs, utils, ... }:
let
  cfg = config.services.hapi-backup;
  inherit (lib) mkDefault mkIf mkOption types;
  units = import ./units.nix { inherit lib; };
  json = pkgs.formats.json { };
  home = toString config.users.users.${cfg.user}.home;
  # A path written as ./key would be copied into the store on its way into the file: the assertions refuse it instead.
  plainPaths = value:
    if builtins.isPath value then toString value
    else if lib.isList value then map plainPaths value
    else if lib.isAttrs value && !(value ? outPath) then lib.mapAttrs (_: plainPaths) value
    else value;
  settings = lib.filterAttrs (_: value: value != null) (plainPaths cfg.settings);
  absolute = path:
    if path == "~" || lib.hasPrefix "~/" path then home + lib.removePrefix "~" path
    else if lib.hasPrefix "$HAPI_HOME/" path then cfg.hapiHome + lib.removePrefix "$HAPI_HOME" path
    else path;
  destinations = lib.imap0
    (index: destination: destination // {
      name = destination.name or "${destination.kind}${if index == 0 then "" else toString (index + 1)}";
    })
    (settings.destinations or [ ]);
  notifiers = lib.imap0
    (index: notifier: notifier // {
      name = notifier.name or "${notifier.kind}${if index == 0 then "" else toString (index + 1)}";
    })
    (settings.notify or [ ]);
  ofKind = kind: lib.filter (destination: destination.kind == kind) destinations;
  hasDestinations = destinations != [ ];
  beforeStart = "hapi-backup-state-before-start";
  asksFirst = cfg.beforeUserUnits != [ ];
  setNames = lib.subtractLists units.reserved (lib.attrNames settings.sets);

  environment = { HOME = home; } // lib.optionalAttrs (cfg.hapiHome != "${home}/.hapi") { HAPI_HOME = cfg.hapiHome; };
  exports = lib.concatStrings (lib.mapAttrsToList (name: value: "export ${name}=${lib.escapeShellArg value}\n") environment);
  configFile = pkgs.runCommand "hapi-backup.json"
    {
      json = builtins.toJSON settings;
      passAsFile = [ "json" ];
    } ''
    ${exports}
    ${lib.getExe cfg.package} config check --config "$jsonPath" > checked || { cat checked; exit 1; }
    cp "$jsonPath" $out
  '';

  credential = name: path: lib.optional (path != null) { inherit name; file = absolute (toString path); };
  signing = credential "signing-key" (settings.signingKeyFile or null);
  shipping = {
    credential = lib.concatMap
      (destination:
        credential "${destination.name}-key" (destination.identityFile or null)
        ++ credential "${destination.name}-read-key" (destination.readIdentityFile or null)
        ++ credential "${destination.name}-rclone-config" (destination.configFile or null))
      destinations;
    knownHosts = units.rows "file" (map (destination: units.bindable (absolute destination.knownHostsFile)) (ofKind "rsync"));
    folder = units.rows "path" (map (destination: units.bindable (absolute destination.path)) (ofKind "folder"));
    notifier = units.rows "program" (map (notifier: units.bindable (absolute (lib.head notifier.command)))
      (lib.filter (notifier: notifier.kind == "command") notifiers));
  };
  tokens = lib.concatMap
    (notifier:
      credential "${notifier.name}-url" (notifier.urlFile or null)
      ++ credential "${notifier.name}-token" (notifier.tokenFile or null))
    notifiers;
  fill = own: {
    texts = units.defaults // {
      inherit home;
      inherit (cfg) user beforeTimeout;
      inherit (settings) hub store;
      state = settings.stateFolder;
      config = "${configFile}";
    } // own.texts or { };
    lists = {
      program = [ ]; # the store is in view
      variable = units.rows "assignment" (lib.mapAttrsToList (name: value: "${name}=${value}") (removeAttrs environment [ "HOME" ]));
      alarm = units.rows "unit" cfg.onFailure;
      shipper = units.rows "unit" (lib.optional hasDestinations "hapi-backup-ship.service");
      wanter = units.rows "unit" cfg.beforeUnits;
      chosen = units.rows "set" setNames;
      ancestor = [ ];
    } // own.lists or { };
  };
  command = extraArgs: args: utils.escapeSystemdExecArgs ([ (lib.getExe cfg.package) ] ++ args ++ [ "--config" "${configFile}" ] ++ extraArgs);
  sourcesOf = set: map (source: source // { path = absolute source.path; }) settings.sets.${set}.sources;
  snapshotFill = set: fill {
    texts = { inherit set; };
    lists = {
      credential = signing;
      source = units.rows "path" (map units.bindable (units.sourcePaths (sourcesOf set) ++ cfg.sets.${set}.readOnlyPaths));
    };
  };
  drillStore = lib.optional (cfg.verify.store != null) cfg.verify.store;
  drillFolder = lib.filter (lib.hasPrefix "/") drillStore;
  isRemote = lib.subtractLists (drillFolder ++ map (destination: destination.name) (ofKind "folder")) drillStore != [ ];
  verifyFill = fill {
    texts = { inherit (cfg.verify) set; verifyNetwork = if isRemote then "network" else "no-network"; };
    lists = shipping // {
      credential = credential "identity" cfg.verify.identityFile ++ lib.optionals isRemote shipping.credential;
      source = units.rows "path" (map units.bindable (units.sourcePaths (lib.filter (source: source.kind == "sqlite") (sourcesOf cfg.verify.set)) ++ drillFolder));
    };
  };

  secrets = { "services.hapi-backup.signingKeyFile" = settings.signingKeyFile or null; }
    // lib.optionalAttrs cfg.verify.enable { "services.hapi-backup.verify.identityFile" = cfg.verify.identityFile; }
    // lib.listToAttrs (lib.concatMap
    (destination: map (key: lib.nameValuePair "services.hapi-backup.destinations.${destination.name}.${key}" (destination.${key} or null))
      [ "identityFile" "readIdentityFile" "configFile" ])
    destinations)
    // lib.listToAttrs (lib.concatMap
    (notifier: map (key: lib.nameValuePair "services.hapi-backup.settings.notify.${notifier.name}.${key}" (notifier.${key} or null))
      [ "urlFile" "tokenFile" ])
    notifiers);
  isInStore = path: path != null && (lib.hasPrefix "${builtins.storeDir}/" (toString path));

  calendar = types.attrsOf types.unspecified;
  timerOption = what: mkOption {
    type = types.nullOr calendar;
    default = { };
    example = { OnCalendar = "*-*-* 06,18:00:00"; Persistent = true; };
    description = ''
      When ${what}: settings of {manpage}`systemd.timer(5)`, which go over the defaults of {file}`nix/units.json` one by
      one. Calendar times are local. `null` makes no timer.
    '';
  };
  fileOption = text: mkOption {
    type = types.nullOr (types.either types.path types.str);
    default = null;
    apply = value: if value == null then null else toString value;
    description = "${text} A path on the machine, never in the Nix store; the units get it by `LoadCredential`, so root may be its only reader.";
  };
  argsOption = verb: mkOption {
    type = types.listOf types.str;
    default = [ ];
    description = "More arguments of `hapi-backup ${verb}`.";
  };
in
{
  options.services.hapi-backup = {
    enable = lib.mkEnableOption "backups of the HAPI hub on this machine";
    package = mkOption {
      type = types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = lib.literalExpression "hapi-backup.packages.\${system}.default";
      description = "The hapi-backup to run.";
    };
    user = mkOption {
      type = types.str;
      example = "alice";
      description = "The operator: whose home holds the hub's database and files, and whom the units run as.";
    };
    hapiHome = mkOption {
      type = types.str;
      default = "${home}/.hapi";
      defaultText = lib.literalExpression ''"''${config.users.users.<user>.home}/.hapi"'';
      description = "The hub's own folder, `HAPI_HOME`.";
    };
    settings = mkOption {
      type = json.type;
      default = { };
      example = { limits.snapshotSeconds = 600; sets.state.fullEveryDays = 14; };
      description = ''
        The configuration file, key by key: `hapi-backup config schema` lists them. It is checked with
        `hapi-backup config check` when the system is built. The sets `state` and `voice` are there by default; a new list
        of `sources` replaces a set's own.
      '';
    };
    sets = mkOption {
      type = types.attrsOf (types.submodule ({ name, ... }: {
        options = {
          timerConfig = timerOption "a snapshot of set ${name} is taken";
          readOnlyPaths = mkOption {
            type = types.listOf types.str;
            default = [ ];
            description = "More paths that the unit may read, such as where a link among the sources leads to.";
          };
          extraArgs = argsOption "backup";
        };
      }));
      default = { };
      description = "How each set is run; the sets themselves are in `settings.sets`.";
    };
    recipients = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "age1..." "age1..." ];
      description = "age recipients that can open the snapshots: two or more, whose identities are kept in different places off the hub.";
    };
    signingKeyFile = fileOption "OpenSSH Ed25519 private key that signs snapshots.";
    destinations = mkOption {
      type = types.listOf json.type;
      default = [ ];
      example = [{ kind = "rsync"; target = "hapi-home@storage:"; identityFile = "/etc/keys/write"; knownHostsFile = "/etc/ssh/known_storage"; }];
      description = "Where snapshots are sent: `settings.destinations`. Key files as for `signingKeyFile`.";
    };
    ship = {
      timerConfig = timerOption "what still waits is sent, beside after each snapshot";
      extraArgs = argsOption "ship";
    };
    onFailure = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "mail@%n.service" ];
      description = "Units to start when a unit of hapi-backup fails for good; `%n` becomes the name of the failed one.";
    };
    beforeUnits = mkOption {
      type = types.listOf types.str;
      default = [ "hapi-hub.service" ];
      description = ''
        Units before whose start a snapshot of `state` is taken, so before any migration. A unit that does not exist is no
        error. A snapshot that fails or takes too long is reported and does not keep the unit from starting.
      '';
    };
    beforeUserUnits = mkOption {
      type = types.listOf types.str;
      default = [ "hapi-hub.service" ];
      description = ''
        The same for units of the operator's own manager (`systemctl --user`): it asks the system's manager for the snapshot,
        which polkit lets the operator do.
      '';
    };
    beforeTimeout = mkOption {
      type = types.str;
      default = units.defaults.beforeTimeout;
      description = "How long such a start waits at most.";
    };
    configFile = mkOption {
      type = types.package;
      readOnly = true;
      internal = true;
      description = "The configuration file, checked.";
    };
    createWrapper = mkOption {
      type = types.bool;
      default = true;
      description = "Whether to put a `hapi-backup` with this configuration on the system's path.";
    };
    verify = {
      enable = lib.mkEnableOption "a weekly drill on this machine. Better not on the hub: the drill needs an identity, and with one here whoever takes this machine can read its backups";
      identityFile = fileOption "age identity that opens the snapshots.";
      set = mkOption {
        type = types.str;
        default = "state";
        description = "Which set the drill restores.";
      };
      store = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "What the drill reads: a destination's name, or the absolute path of a store's folder; `null` is the local store. That one and a folder are read without a network.";
      };
      timerConfig = timerOption "the drill is made";
      extraArgs = argsOption "verify";
    };
  };

  config = mkIf cfg.enable {
    services.hapi-backup = {
      inherit configFile;
      settings = {
        hub = mkDefault config.networking.hostName;
        store = mkDefault "/var/lib/hapi-backup/store";
        stateFolder = mkDefault "/var/lib/hapi-backup/state";
        recipients = mkIf (cfg.recipients != [ ]) cfg.recipients;
        signingKeyFile = mkIf (cfg.signingKeyFile != null) cfg.signingKeyFile;
        destinations = mkIf (cfg.destinations != [ ]) cfg.destinations;
        sets = lib.mapAttrs (_: lib.mapAttrs (_: mkDefault)) (lib.importJSON ./default-sets.json);
      };
      sets = lib.mapAttrs (_: _: { }) cfg.settings.sets;
    };

    assertions = [
      {
        assertion = settings.recipients or [ ] != [ ];
        message = "services.hapi-backup.recipients is empty: nobody could open the backups. Make an identity with `age-keygen` off this machine, and give its recipient (age1...) here.";
      }
      {
        assertion = settings.signingKeyFile or null != null;
        message = "services.hapi-backup.signingKeyFile is not set: no snapshot could be told from a forged one. Make a key with `ssh-keygen -t ed25519 -N '' -f FILE`, and give FILE here.";
      }
      {
        assertion = !(settings ? identityFile);
        message = "services.hapi-backup.settings.identityFile puts an identity on the hub: whoever takes the hub could read its backups. Remove it and keep the identity elsewhere; for a drill on this machine all the same, set services.hapi-backup.verify.identityFile.";
      }
      {
        assertion = cfg.verify.enable -> cfg.verify.identityFile != null;
        message = "services.hapi-backup.verify is enabled without an identity: set services.hapi-backup.verify.identityFile, or make the drill where the identity is.";
      }
      {
        assertion = cfg.verify.store == null || lib.hasPrefix "/" cfg.verify.store || lib.any (destination: destination.name == cfg.verify.store) destinations;
        message = "services.hapi-backup.verify.store is ${toString cfg.verify.store}: give a destination's name or the absolute path of a folder.";
      }
      {
        assertion = cfg.verify.enable ->
          lib.all (destination: destination.name != cfg.verify.store || destination ? readIdentityFile) (ofKind "rsync");
        message = "services.hapi-backup.verify.store is ${toString cfg.verify.store}, whose key may only add: give that destination a readIdentityFile, a key that may only read.";
      }
      {
        assertion = !(lib.any (set: settings.sets ? ${set}) units.reserved);
        message = "services.hapi-backup.settings.sets: a set cannot have the name of a verb (${lib.concatStringsSep ", " units.reserved}): its unit would. Choose another name.";
      }
      {
        assertion = lib.all (set: settings.sets ? ${set}) (lib.attrNames cfg.sets);
        message = "services.hapi-backup.sets names ${toString (lib.filter (set: !(settings.sets ? ${set})) (lib.attrNames cfg.sets))}, which is no set: say in services.hapi-backup.settings.sets what is in it.";
      }
    ] ++ lib.mapAttrsToList
      (option: path: {
        assertion = !(isInStore path);
        message = "${option} is ${toString path}, in the Nix store, where every user of the machine can read it: give a path outside the store as a string, such as one that sops-nix or agenix makes.";
      })
      secrets
    ++ map
      (path: {
        assertion = units.isPlain path;
        message = "services.hapi-backup: the path ${path} would need quoting in a unit: use letters, digits and . _ - / only.";
      })
      ([ home settings.store settings.stateFolder ] ++ map (row: row.file) (signing ++ shipping.credential ++ tokens));

    warnings = lib.optional (lib.length (settings.recipients or [ ]) == 1)
      "services.hapi-backup.recipients has one recipient: when its identity is lost, so are the backups. Add a second one, kept in another place."
    ++ lib.optional (!hasDestinations)
      "services.hapi-backup.destinations is empty: nothing leaves this machine, and a dead disk takes the backups with it."
    ++ lib.optional (cfg.beforeUnits ++ cfg.beforeUserUnits != [ ] && !(lib.elem "state" setNames))
      "services.hapi-backup has no set `state`: no snapshot is taken before the hub starts. Give the main set that name, or set beforeUnits and beforeUserUnits to [ ]."
    ++ lib.optional cfg.verify.enable
      "services.hapi-backup.verify is enabled: an identity is on this machine. If this is the hub, whoever takes it can read its backups: make the drill on another machine.";

    systemd.services = lib.mkMerge (
      lib.concatMap
        (set: [
          (units.service { kind = "backup"; fill = snapshotFill set; command = command cfg.sets.${set}.extraArgs; })
          (mkIf (set == "state" && cfg.beforeUnits ++ cfg.beforeUserUnits != [ ])
            (units.service { kind = "before"; fill = snapshotFill set; command = command cfg.sets.${set}.extraArgs; }))
        ])
        setNames
      ++ lib.optional hasDestinations (units.service { kind = "ship"; fill = fill { lists = shipping // { credential = shipping.credential ++ tokens; token = tokens; }; }; command = command cfg.ship.extraArgs; })
      ++ lib.optional cfg.verify.enable (units.service {
        kind = "verify";
        fill = verifyFill;
        command = command ([ "--identity" (toString cfg.verify.identityFile) ]
          ++ lib.concatMap (store: [ "--store" store ]) drillStore ++ cfg.verify.extraArgs);
      })
    );
    systemd.timers = lib.mkMerge (
      map
        (set: units.timer { kind = "backup"; fill = snapshotFill set; calendar = set; inherit (cfg.sets.${set}) timerConfig; })
        setNames
      ++ lib.optional hasDestinations (units.timer { kind = "ship"; fill = fill { }; calendar = "ship"; inherit (cfg.ship) timerConfig; })
      ++ lib.optional cfg.verify.enable (units.timer { kind = "verify"; fill = verifyFill; calendar = "verify"; inherit (cfg.verify) timerConfig; })
    );
    systemd.user.services.${beforeStart} = mkIf asksFirst {
      description = "hapi-backup: ask the system for a snapshot before a start";
      before = cfg.beforeUserUnits;
      wantedBy = cfg.beforeUserUnits;
      unitConfig.ConditionUser = cfg.user;
      serviceConfig = {
        Type = "oneshot";
        SyslogIdentifier = "hapi-backup";
        ExecStart = "${pkgs.systemd}/bin/systemctl start ${beforeStart}.service";
        TimeoutStartSec = cfg.beforeTimeout;
      };
    };
    security.polkit = mkIf asksFirst {
      enable = mkDefault true;
      extraConfig = ''
        polkit.addRule(function (action, subject) {
          if (action.id == "org.freedesktop.systemd1.manage-units" && action.lookup("unit") == "${beforeStart}.service"
              && action.lookup("verb") == "start" && subject.user == ${builtins.toJSON cfg.user}) {
            return polkit.Result.YES;
          }
        });
      '';
    };
    systemd.tmpfiles.rules = units.folders "hub" (fill { });
    environment.systemPackages = mkIf cfg.createWrapper [
      (lib.hiPrio (pkgs.writeShellScriptBin "hapi-backup" ''
        export HAPI_BACKUP_CONFIG="''${HAPI_BACKUP_CONFIG-${configFile}}"
        exec ${lib.getExe cfg.package} "$@"
      ''))
      cfg.package # its completions and man page
    ];
  };
}
