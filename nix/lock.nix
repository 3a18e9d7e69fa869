# deno.lock cut down to what deno.json itself asks for: the tests' packages are locked there too, and neither the
# package nor its hash has anything to do with them.
let
  manifest = builtins.fromJSON (builtins.readFile ../deno.json);
  lock = builtins.fromJSON (builtins.readFile ../deno.lock);
  # "@noble/hashes@2.0.1_peer@1" is version 2.0.1 of @noble/hashes.
  parse = key:
    let m = builtins.match "(@?[^@]+)@([^_]+).*" key;
    in if m == null then throw "deno.lock: ${key} is not NAME@VERSION" else { name = builtins.elemAt m 0; version = builtins.elemAt m 1; };
  keys = builtins.attrNames lock.npm;
  # A dependency stands there with its version only where two versions of it are locked.
  resolve = dependency:
    if lock.npm ? ${dependency} then dependency
    else
      let same = builtins.filter (key: (parse key).name == dependency) keys;
      in if builtins.length same == 1 then builtins.head same else throw "deno.lock: ${dependency} is not one package";
  dependenciesOf = key: map resolve (lock.npm.${key}.dependencies or [ ]);
  specifiers = builtins.attrValues manifest.imports;
  roots = map (specifier: "${(parse (builtins.substring 4 (-1) specifier)).name}@${lock.specifiers.${specifier}}") specifiers;
  closure = builtins.genericClosure {
    startSet = map (key: { inherit key; }) roots;
    operator = { key }: map (dependency: { key = dependency; }) (dependenciesOf key);
  };
  wanted = map ({ key }: key) closure;
  # A lock file names the version only where it is in doubt, and Deno calls a lock file that says more out of date.
  shortest = key:
    let inherit (parse key) name;
    in if builtins.length (builtins.filter (other: (parse other).name == name) wanted) == 1 then name else key;
in
{
  inherit parse dependenciesOf roots;
  keys = builtins.sort (a: b: a < b) wanted;
  # The same as a lock file.
  text = builtins.toJSON {
    inherit (lock) version;
    specifiers = builtins.listToAttrs (map (name: { inherit name; value = lock.specifiers.${name}; }) specifiers);
    npm = builtins.listToAttrs (map
      (key: {
        name = key;
        value = { inherit (lock.npm.${key}) integrity; }
          // (if lock.npm.${key} ? dependencies then { dependencies = map shortest (dependenciesOf key); } else { });
      })
      wanted);
    workspace.dependencies = specifiers;
  };
  # What a package of the system would have to be built for: such ones make the hash depend on the machine.
  platformBound = builtins.filter (key: lock.npm.${key} ? os || lock.npm.${key} ? cpu || lock.npm.${key} ? optionalDependencies) wanted;
}
