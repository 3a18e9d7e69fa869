# A small stand-in for nixpkgs' lib, so that the modules can be evaluated where
# no nixpkgs can be had. It holds only what our modules use; a missing name is
# an error, and `nix flake check` with the real lib stays the last word.
let
  b = builtins;
  lib = rec {
    inherit (b) attrNames attrValues concatLists concatMap concatStringsSep elem elemAt filter foldl' genList hasAttr
      head isAttrs isBool isFloat isFunction isInt isList isPath isString length listToAttrs
      mapAttrs match replaceStrings substring stringLength tail toJSON toString;
    id = x: x;
    imap0 = f: l: genList (i: f i (elemAt l i)) (length l);
    any = b.any; all = b.all;
    assertMsg = ok: message: ok || throw message;
    removeAttrs = b.removeAttrs;
    optional = c: x: if c then [ x ] else [ ];
    optionals = c: x: if c then x else [ ];
    optionalString = c: x: if c then x else "";
    optionalAttrs = c: x: if c then x else { };
    toList = x: if isList x then x else [ x ];
    subtractLists = l: filter (x: !(elem x l));
    last = l: elemAt l (length l - 1);
    unique = foldl' (acc: x: if elem x acc then acc else acc ++ [ x ]) [ ];
    nameValuePair = name: value: { inherit name value; };
    mapAttrsToList = f: s: map (n: f n s.${n}) (attrNames s);
    mapAttrs' = f: s: listToAttrs (mapAttrsToList f s);
    filterAttrs = p: s: listToAttrs (concatMap (n: optional (p n s.${n}) (nameValuePair n s.${n})) (attrNames s));
    genAttrs = names: f: listToAttrs (map (n: nameValuePair n (f n)) names);
    concatStrings = concatStringsSep "";
    concatMapStrings = f: l: concatStrings (map f l);
    concatMapStringsSep = sep: f: l: concatStringsSep sep (map f l);
    hasPrefix = p: s: substring 0 (stringLength p) s == p;
    hasInfix = i: s: b.length (b.split (escapeRegex i) s) > 1;
    escapeRegex = let special = [ "\\" "[" "{" "(" ")" "^" "$" "?" "*" "+" "|" "." ]; in replaceStrings special (map (c: "\\" + c) special);
    escapeShellArg = a: let s = toString a; in if match "[[:alnum:],._+:@%/-]+" s != null then s else "'" + replaceStrings [ "'" ] [ "'\\''" ] s + "'";
    escapeShellArgs = concatMapStringsSep " " escapeShellArg;
    makeBinPath = concatMapStringsSep ":" (p: "${p}/bin");
    getExe = p: "${p}/bin/${p.meta.mainProgram or p.name}";
    getExe' = p: n: "${p}/bin/${n}";
    importJSON = f: b.fromJSON (b.readFile f);
    removePrefix = p: s: if hasPrefix p s then substring (stringLength p) (-1) s else s;
    fileContents = f: let m = match "(.*[^\n])\n*" (b.readFile f); in if m == null then "" else head m;
    fetchers.proxyImpureEnvVars = [ "http_proxy" "https_proxy" "no_proxy" ];
    fileset = {
      unions = l: l;
      toSource = { root, fileset }: b.path {
        name = "source"; path = root;
        filter = p: _: b.any (f: hasPrefix (toString f + "/") (p + "/") || hasPrefix (p + "/") (toString f)) fileset;
      };
    };
    literalExpression = text: { _type = "literalExpression"; inherit text; };

    mkOption = a: a // { _type = "option"; };
    mkEnableOption = n: mkOption { type = types.bool; default = false; description = "Whether to enable ${n}."; };
    mkPackageOption = pkgs: n: _: mkOption { type = types.package; default = pkgs.${n}; };
    mkIf = condition: content: { _type = "if"; inherit condition content; };
    mkMerge = contents: { _type = "merge"; inherit contents; };
    mkOverride = priority: content: { _type = "override"; inherit priority content; };
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    hiPrio = id;

    # ---- types: a check and a merge of definitions
    types =
      let
        mk = name: check: merge: { inherit name check merge; };
        one = loc: defs: if length (unique defs) == 1 then head defs else throw "conflicting definitions of ${show loc}: ${b.toJSON (map (d: if isFunction d then "<function>" else d) defs)}";
        simple = name: check: mk name check one;
      in
      rec {
        bool = simple "bool" isBool;
        int = simple "int" isInt;
        float = simple "float" isFloat;
        str = simple "str" isString;
        nonEmptyStr = simple "nonEmptyStr" (s: isString s && match "[[:space:]]*" s == null);
        singleLineStr = simple "singleLineStr" (s: isString s && match "[^\n]*" s != null);
        lines = mk "lines" isString (_: concatStringsSep "\n");
        path = simple "path" (p: isPath p || (isString p && hasPrefix "/" p) || (isAttrs p && p ? outPath));
        package = simple "package" (p: isAttrs p && p ? outPath);
        port = simple "port" (p: isInt p && p >= 0 && p <= 65535);
        unspecified = simple "unspecified" (_: true);
        anything = unspecified;
        raw = unspecified;
        ints.positive = simple "positive int" (i: isInt i && i > 0);
        ints.unsigned = simple "unsigned int" (i: isInt i && i >= 0);
        ints.between = lo: hi: simple "int ${toString lo}..${toString hi}" (i: isInt i && i >= lo && i <= hi);
        strMatching = re: simple "str matching ${re}" (s: isString s && match re s != null);
        enum = l: simple "one of ${b.toJSON l}" (x: elem x l);
        nullOr = t: mk "null or ${t.name}" (x: x == null || t.check x) (loc: defs: if b.all (d: d == null) defs then null else t.merge loc defs);
        either = a: c: mk "${a.name} or ${c.name}" (x: a.check x || c.check x) (loc: defs: if b.all a.check defs then a.merge loc defs else if b.all c.check defs then c.merge loc defs else one loc defs);
        oneOf = l: foldl' either (head l) (tail l);
        listOf = t: mk "list of ${t.name}" isList (loc: defs: b.genList (i: value t (loc ++ [ (toString i) ]) [ (elemAt (b.concatLists defs) i) ]) (length (b.concatLists defs)));
        attrsOf = t: mk "attrs of ${t.name}" isAttrs (loc: defs:
          let all = concatMap push defs; names = unique (concatMap attrNames all);
          in b.listToAttrs (concatMap (n:
            let ds = concatMap (d: optionals (d ? ${n}) (discharge d.${n})) all;
            in optional (ds != [ ]) (nameValuePair n (value t (loc ++ [ n ]) (map (d: d.content) (strongest ds))))) names));
        lazyAttrsOf = attrsOf;
        submodule = m: mk "submodule" (x: isAttrs x || isFunction x || isPath x) (loc: defs:
          (evalModules { prefix = loc; specialArgs.name = last loc; modules = toList m ++ map (d: if isFunction d || isPath d then d else { config = d; }) defs; }).config);
      };

    # ---- the module system, cut down
    show = concatStringsSep ".";
    push = c: if c._type or "" == "merge" then concatMap push c.contents
      else if c._type or "" == "if" then map (mapAttrs (_: mkIf c.condition)) (push c.content)
      else if c._type or "" == "override" then map (mapAttrs (_: mkOverride c.priority)) (push c.content)
      else [ c ];
    discharge = d: if d._type or "" == "merge" then concatMap discharge d.contents
      else if d._type or "" == "if" then optionals d.condition (discharge d.content)
      else if d._type or "" == "override" then map (x: x // { inherit (d) priority; }) (discharge d.content)
      else [ { priority = 100; content = d; } ];
    strongest = ds: let top = foldl' (p: d: if d.priority < p then d.priority else p) 10000 ds; in filter (d: d.priority == top) ds;
    value = t: loc: defs:
      let flat = map (d: d.content) (strongest (concatMap discharge defs));
          bad = filter (d: !t.check d) flat;
      in if bad != [ ] then throw "${show loc} is not of type ${t.name}" else t.merge loc flat;
    isOption = o: o._type or "" == "option";
    mergeOptions = loc: trees: mapAttrs (n: _:
      let here = concatMap (t: optional (t ? ${n}) t.${n}) trees; at = loc ++ [ n ];
      in if b.any isOption here then (if length here == 1 then head here else throw "option ${show at} declared twice") else mergeOptions at here)
      (foldl' (a: t: a // t) { } trees);
    evalTree = loc: opts: cfgs:
      let
        extra = filter (n: !(opts ? ${n})) (unique (concatMap attrNames cfgs));
        node = n: o:
          let at = loc ++ [ n ]; here = concatMap (c: optional (c ? ${n}) c.${n}) cfgs; in
          if isOption o then
            let
              found = concatMap discharge here ++ optional (o ? default) { priority = 1500; content = o.default; };
              v = if found == [ ] then throw "option ${show at} is used but not defined" else value o.type at (map (d: d.content) (strongest found));
            in (o.apply or id) v
          else evalTree at o (concatMap push here);
      in if extra != [ ] then throw "no such option: ${show (loc ++ [ (head extra) ])}" else mapAttrs node opts;
    evalModules = { modules, specialArgs ? { }, prefix ? [ ] }:
      let
        args = { inherit lib config options; } // specialArgs;
        load = m:
          let raw = if isPath m || isString m then import m else m;
              set = if isFunction raw then raw args else raw;
              structured = set ? config || set ? options;
          in concatMap load (set.imports or [ ]) ++ [ { options = set.options or { }; config = if structured then set.config or { } else removeAttrs set [ "imports" "_file" "key" ]; } ];
        loaded = concatMap load modules;
        options = mergeOptions prefix (map (m: m.options) loaded);
        config = evalTree prefix options (concatMap (m: push m.config) loaded);
      in { inherit config options; };
  };
in
lib
