# evalModules in small: options, conditions, priorities, and errors in nixpkgs' words.
{ lib }:
let
  is = kind: value: builtins.isAttrs value && (value._type or "") == kind;

  # A definition without its conditions: as many values as hold.
  flat =
    value:
    if is "if" value then
      (if value.condition then flat value.content else [ ])
    else if is "merge" value then
      builtins.concatMap flat value.contents
    else
      [ value ];

  # A condition on a set is one on each of its attributes, so that it does not hold up the others.
  pushed =
    value:
    if is "if" value then
      map (builtins.mapAttrs (_: content: lib.mkIf value.condition content)) (pushed value.content)
    else if is "merge" value then
      builtins.concatMap pushed value.contents
    else
      [ value ];

  checked =
    place: type: value:
    if type.check value then
      value
    else
      throw "A definition for option `${place}' is not of type `${type.description}'. Definition value: ${builtins.toJSON value}";

  checkedItems =
    place: item: values:
    builtins.genList (
      index:
      let
        name = "${place}.[definition 1-entry ${toString (index + 1)}]";
      in
      item.merge name [ (checked name item (builtins.elemAt values index)) ]
    ) (builtins.length values);

  merged =
    place: option: definitions:
    let
      priority = value: if is "override" value then value.priority else 100;
      bare = value: if is "override" value then value.content else value;
      given = builtins.concatMap flat definitions;
      first = builtins.foldl' (least: value: if priority value < least then priority value else least) 9999 given;
      values = map bare (builtins.filter (value: priority value == first) given);
    in
    if given == [ ] && option ? default then
      merged place (builtins.removeAttrs option [ "default" ]) [ option.default ]
    else if given == [ ] then
      throw "The option `${place}' was accessed but has no value defined. Try setting the option."
    else
      option.type.merge place (map (checked place option.type) values);

  tree =
    place: options: definitions:
    let
      sets = builtins.concatMap pushed definitions;
      unknown = builtins.concatMap (set: builtins.filter (name: !(options ? ${name})) (builtins.attrNames set)) sets;
      under = name: builtins.concatMap (set: lib.optional (set ? ${name}) set.${name}) sets;
      value =
        name: option:
        if is "option" option then merged "${place}${name}" option (under name) else tree "${place}${name}." option (under name);
    in
    if unknown != [ ] then
      throw "The option `${place}${builtins.head unknown}' does not exist."
    else
      builtins.mapAttrs value options;

  union =
    left: right:
    left
    // builtins.mapAttrs (
      name: option: if left ? ${name} && !(is "option" option) then union left.${name} option else option
    ) right;

  evaluate =
    {
      modules,
      specialArgs ? { },
    }:
    let
      load = module: if builtins.isFunction module then module ({ inherit lib config; } // specialArgs) else module;
      parts = map load (map (module: if builtins.isPath module then import module else module) modules);
      isFull = part: part ? config || part ? options;
      options = builtins.foldl' (all: part: union all (part.options or { })) { } parts;
      config = tree "" options (map (part: if isFull part then part.config or { } else part) parts);
    in
    {
      inherit options config;
    };
in
{
  __functor = _: evaluate;
  inherit checkedItems merged tree;
}
