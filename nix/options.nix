# The options `services.intelnav.settings`, made from the JSON Schema of the node's config file. What an option leaves
# null does not get into the file, so that the node's own default applies; `"none"` is what its file calls nothing.
{ lib }:
let
  inherit (lib) types;
  schema = builtins.fromJSON (builtins.readFile ../config/node.schema.json);

  resolve =
    form:
    if form ? "$ref" then schema."$defs".${lib.removePrefix "#/$defs/" form."$ref"} else form;

  # Schemas say null for a section whose keys are all commented out, which Nix has no need for.
  kind = form: if builtins.isList form.type then builtins.head form.type else form.type;

  between =
    type: form:
    types.addCheck type (
      value:
      value <= form.maximum
      && (if form ? minimum then value >= form.minimum else value > form.exclusiveMinimum)
    )
    // {
      description =
        type.description
        + (if form ? minimum then " from ${toString form.minimum}" else " above ${toString form.exclusiveMinimum}")
        + " to ${toString form.maximum}";
    };

  # Nix has POSIX patterns: those that it cannot read are left to the node.
  text =
    form:
    let
      trimmed = lib.removeSuffix ")\\s*$" (lib.removePrefix "^\\s*(" form.pattern);
      bare = lib.removeSuffix "$" (lib.removePrefix "^" trimmed);
      pattern = builtins.replaceStrings [ "[^\\s#@]" ] [ "[^[:space:]#@]" ] bare;
      strange = builtins.match ".*(\\\\s|\\\\S|\\(\\?).*" pattern != null;
    in
    if form ? pattern && !strange then
      types.addCheck types.str (value: builtins.match pattern value != null)
      // {
        description = form.title or "text of the form ${pattern}";
      }
    else
      types.str;

  typeOf =
    reference:
    let
      form = resolve reference;
      named = type: if form ? title then type // { description = form.title; } else type;
      forms = builtins.filter (each: each != { type = "null"; }) form.anyOf;
    in
    if form ? anyOf then
      (if builtins.length forms == 1 then typeOf (builtins.head forms) else named (types.oneOf (map typeOf forms)))
    else if form ? const then
      types.enum [ form.const ]
    else if form ? enum then
      types.enum form.enum
    else
      {
        object = types.submodule { options = optionsOf form; };
        array = types.listOf (typeOf form.items);
        integer = between types.int form;
        number = between types.number form;
        boolean = types.bool;
        string = text form;
      }
      .${kind form};

  optionsOf =
    section:
    builtins.mapAttrs (
      key: form:
      let
        required = builtins.elem key (section.required or [ ]);
        isSection = (resolve form).type or null == [ "object" "null" ];
        default = if form ? default then " Default: `${builtins.toJSON form.default}`." else "";
      in
      lib.mkOption (
        {
          type = if required || isSection then typeOf form else types.nullOr (typeOf form);
          description = (form.description or (resolve form).description or "See the node's config file.") + default;
        }
        // (if required then { } else { default = if isSection then { } else null; })
      )
    ) section.properties;
in
optionsOf schema
