# Fills units.json in for NixOS; scripts/core/sandbox/units.ts does the same for every other system, rule by rule, and
# tests/nix/modules_test.ts compares the two.
{ lib }:
let
  description = lib.importJSON ./units.json;
  # { texts = { name = text; }; lists = { name = [ { field = text; } ]; }; }
  fillIn = fill: line:
    let
      named = builtins.match ".*[{]([A-Za-z]+)[.][A-Za-z]+}.*" line;
      list = lib.head named;
      texts = lib.attrNames fill.texts;
      one = row:
        let
          fields = lib.attrNames row;
          filled = lib.replaceStrings
            (map (name: "{${name}}") texts ++ map (field: "{${list}.${field}}") fields)
            (map (name: fill.texts.${name}) texts ++ map (field: row.${field}) fields)
            line;
          left = builtins.match ".*[{]([A-Za-z]+([.][A-Za-z]+)?)}.*" filled;
        in
        if left != null && lib.hasInfix "{${lib.head left}}" line
        then throw "units.json names {${lib.head left}}, which nothing fills in" else filled;
    in
    if named == null then [ (one { }) ] else map one fill.lists.${list};
  # Lists grow, later texts win.
  merge = sections: lib.foldl' (all: section: all // lib.mapAttrs (key: value:
    if lib.isList value then (all.${key} or [ ]) ++ value else value) section) { } sections;
  filled = fill: sections: lib.filterAttrs (_: value: value != [ ]) (merge (map (section: lib.mapAttrs (_: value:
    if lib.isList value then lib.concatMap (fillIn fill) value else lib.head (fillIn fill value)) section) sections));
  nameOf = fill: kind: lib.head (fillIn fill description.services.${kind}.name);
  topLevel = [ "Description" "Wants" "After" "Before" ];
in
{
  inherit (description) defaults;

  # What no set can be called, because its unit would be another's.
  reserved = lib.filter (kind: !(lib.hasInfix "{set}" description.services.${kind}.name)) (lib.attrNames description.services);

  # One service as { NAME = unit; }. `program` is the command up to its verb's own options, already quoted.
  service = { fill, kind, command, more ? { } }:
    let
      spec = description.services.${kind};
      groups = lib.concatMap (fillIn fill) spec.groups;
      unit = filled fill [ spec.unit (spec."unit@system" or { }) ];
      sections = lib.concatMap (group: [ (description.groups.${group} or { }) (description.groups."${group}@system" or { }) ]) groups;
    in
    {
      ${nameOf fill kind} = merge [
        {
          description = unit.Description;
          wants = unit.Wants or [ ];
          after = unit.After or [ ];
          before = unit.Before or [ ];
          wantedBy = (filled fill [ (spec.install or { }) ]).WantedBy or [ ];
          unitConfig = removeAttrs unit topLevel;
          # A rebuild neither takes a snapshot nor cuts one short.
          restartIfChanged = false;
          serviceConfig = filled fill (sections ++ [ spec.service (spec."service@254" or { }) ]) // { ExecStart = command (lib.concatMap (fillIn fill) spec.command); };
        }
        more
      ];
    };

  # One timer as { NAME = unit; }, or nothing where `timerConfig` is null.
  timer = { fill, kind, calendar, timerConfig }:
    let spec = description.timers.${kind}; in
    lib.optionalAttrs (timerConfig != null) {
      ${nameOf fill kind} = {
        description = lib.head (fillIn fill spec.Description);
        wantedBy = [ "timers.target" ];
        timerConfig = removeAttrs spec [ "Description" ] // { OnCalendar = spec.OnCalendar.${calendar} or spec.OnCalendar."*"; } // timerConfig;
      };
    };

  folders = side: fill: lib.concatMap (fillIn fill) description.folders.${side};

  rows = field: map (value: { ${field} = value; });

  # Writes a path for the lists of paths in a unit. Newer systemds take a space only in quotes, and lose a path with a
  # quote in it.
  bindable = path:
    let escaped = lib.replaceStrings [ "%" "\\" ":" ] [ "%%" "\\\\" "\\:" ] path; in
    if builtins.match "[^\"'\n]*" path == null
    then throw "services.hapi-backup: the path ${path} cannot stand in a unit: rename it, so that it has no line end and no quote."
    else if builtins.match "[^\\ \t:]*" path != null then escaped else "\"${escaped}\"";

  # A path that needs no escaping anywhere in a unit.
  isPlain = path: builtins.match "/[A-Za-z0-9_.@+,~/-]*" path != null;

  # The paths that a snapshot of `sources`, whose paths are absolute, reads. A database brings its folder, because its
  # -wal and -shm come and go; what lies inside another of the paths is left out.
  sourcePaths = sources:
    let
      upTo = wild: names: if names == [ ] || wild (lib.head names) then [ ] else [ (lib.head names) ] ++ upTo wild (lib.tail names);
      split = path: lib.filter lib.isString (builtins.split "/" path);
      join = names: let path = lib.concatStringsSep "/" names; in if path == "" then "/" else path;
      parent = path: let names = split path; in join (lib.genList (lib.elemAt names) (lib.length names - 1));
      rootOf = source: {
        sqlite = parent source.path;
        glob = join (upTo (name: builtins.match ".*[*?{[].*" name != null) (split source.path));
      }.${source.kind} or source.path;
      paths = map rootOf sources;
      isInside = path: other: path != other && lib.hasPrefix (if other == "/" then "/" else "${other}/") path;
    in
    lib.unique (lib.filter (path: !(lib.any (isInside path) paths)) paths);
}
