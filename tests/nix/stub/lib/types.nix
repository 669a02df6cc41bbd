# Option types: `check` says whether a value is one, `merge` makes one of several.
{ lib }:
let
  type =
    description: check: {
      inherit description check;
      merge = place: values: builtins.elemAt values (builtins.length values - 1);
    };
in
rec {
  anything = type "anything" (_: true);
  package = anything;
  bool = type "boolean" builtins.isBool;
  str = type "string" builtins.isString;
  int = type "signed integer" builtins.isInt;
  number = type "number" (value: builtins.isInt value || builtins.isFloat value);
  enum = values: type "one of ${builtins.toJSON values}" (value: builtins.elem value values);
  addCheck = base: check: base // { check = value: base.check value && check value; };
  nullOr =
    base:
    base
    // {
      description = "null or ${base.description}";
      check = value: value == null || base.check value;
      merge =
        place: values:
        if builtins.all (value: value == null) values then
          null
        else
          base.merge place (builtins.filter (value: value != null) values);
    };
  either =
    left: right:
    type "${left.description} or ${right.description}" (value: left.check value || right.check value)
    // {
      merge = place: values: (if builtins.all left.check values then left else right).merge place values;
    };
  oneOf = types: builtins.foldl' either (builtins.head types) (builtins.tail types);
  listOf =
    item:
    type "list of ${item.description}" builtins.isList
    // {
      merge =
        place: values:
        lib.evalModules.checkedItems place item (builtins.concatLists values);
    };
  attrsOf =
    item:
    type "attribute set of ${item.description}" builtins.isAttrs
    // {
      merge =
        place: values:
        builtins.mapAttrs (name: found: lib.evalModules.merged "${place}.${name}" (lib.mkOption { type = item; }) found) (
          builtins.zipAttrsWith (_: found: found) values
        );
    };
  submodule =
    module:
    type "submodule" builtins.isAttrs
    // {
      merge = place: values: lib.evalModules.tree "${place}." module.options values;
    };
}
