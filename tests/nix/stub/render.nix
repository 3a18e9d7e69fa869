# A unit as text, as NixOS would write it: attributes in order, lists as repeated lines.
{ lib }:
let
  text = v: if v == true then "true" else if v == false then "false" else toString v;
  section = title: attrs:
    let lines = lib.concatLists (lib.mapAttrsToList (n: v: map (x: "${n}=${text x}\n") (lib.toList v)) (lib.filterAttrs (_: v: v != null && v != [ ]) attrs));
    in lib.optionalString (lines != [ ]) ("[${title}]\n" + lib.concatStrings lines + "\n");
  unit = u: section "Unit" ({ Description = u.description; Wants = u.wants; After = u.after; Before = u.before; } // u.unitConfig);
  install = u: section "Install" { WantedBy = u.wantedBy; };
in
{
  service = u: unit u + section "Service" u.serviceConfig + install u;
  timer = u: unit u + section "Timer" u.timerConfig + install u;
}
