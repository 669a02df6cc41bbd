# services.intelnav: the node's config file as options, and the unit of config/systemd/service.json.
self:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.intelnav;
  settings = plain cfg.settings;

  # What is set, inside of lists, too.
  plain =
    value:
    if builtins.isList value then
      map plain value
    else if builtins.isAttrs value then
      lib.filterAttrs (_: each: each != null && each != { }) (builtins.mapAttrs (_: plain) value)
    else
      value;

  file = pkgs.writeText "intelnav-node.yaml" (builtins.toJSON settings);

  unit =
    let
      parts = builtins.fromJSON (builtins.readFile ../config/systemd/service.json);
      of =
        section:
        (parts.common.${section} or { }) // parts.system.${section} // (if gpu then parts.gpu.${section} or { } else { });
    in
    {
      Unit = of "Unit";
      Service = {
        ExecStart = "${cfg.package}/bin/intelnav-node --config /etc/intelnav/node.yaml";
      }
      // of "Service";
      Install = of "Install";
    };

  device = cfg.settings.backend.device;
  gpu = builtins.elem device [ "cuda" "vulkan" "rocm" ];

  slices = if builtins.isList cfg.settings.slices then cfg.settings.slices else [ ];
  entries = if cfg.settings.entry == null then [ ] else cfg.settings.entry;
  hosts = cfg.settings.slices == "auto" || slices != [ ];

  # HOST:PORT as { host, port }; null for none.
  address =
    text:
    let
      parts = if text == null then null else builtins.match "(.+):([0-9]+)" text;
    in
    if parts == null then
      null
    else
      {
        host = builtins.elemAt parts 0;
        port = builtins.fromJSON (builtins.elemAt parts 1);
      };
  isLocal = found: found == null || builtins.match "127\\..*|\\[::1]|localhost" found.host != null;
  listen = if cfg.settings.network.listen == null then address "127.0.0.1:7717" else address cfg.settings.network.listen;
  chunks =
    if builtins.elem cfg.settings.store.chunks [ null "auto" ] then
      (if listen == null then null else listen // { port = listen.port + 1; })
    else
      address cfg.settings.store.chunks;

  # As `restart_keys` of intelnav/config_file.py has it; whether all is on this machine is settled at the start, too.
  atStart = {
    inherit (cfg.settings) role;
    inherit (cfg.settings.network) listen seeds mdns;
    inherit (cfg.settings.store) chunks;
    api = cfg.settings.api.listen;
    log = cfg.settings.log.format;
    alone = orNone cfg.settings.network.seeds == [ ] && isLocal listen && builtins.all (text: isLocal (address text)) (
      orNone cfg.settings.network.bootstrap ++ map (each: each.address) (orNone cfg.settings.network.peers)
    );
  };
  orNone = list: if list == null then [ ] else list;

  models =
    map (each: each.model) (slices ++ entries)
    ++ (if cfg.settings.auto == null || cfg.settings.auto.models == null then [ ] else cfg.settings.auto.models);
  isRelative = model: builtins.match "(\\.|~).*" model != null;
  isHidden = model: builtins.match "/(home|root|run/user|tmp|var/tmp)/.*" model != null;
  some = test: list: builtins.concatStringsSep ", " (builtins.filter test list);
  at = path: "services.intelnav.settings.${path}";
in
{
  options.services.intelnav = {
    enable = lib.mkEnableOption "a node of IntelNav";

    package = lib.mkOption {
      type = lib.types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = lib.literalExpression "the package of IntelNav's own flake";
      description = "What provides intelnav-node and intelnav.";
    };

    settings = lib.mkOption {
      type = lib.types.submodule { options = import ./options.nix { inherit lib; }; };
      default = { };
      description = "The node's config file, key by key; see docs/config.md.";
      example = lib.literalExpression ''
        {
          slices = [ { model = "smollm2-135m-instruct-q4_1"; layers = "8..15"; } ];
          network.listen = "0.0.0.0:7717";
        }
      '';
    };

    identityFile = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "/run/secrets/intelnav-peer.key";
      description = ''
        Where the node's key is, 32 bytes, readable by root: it becomes the node's own at each start. Without one the
        node makes its key at the first start, and keeps it in /var/lib/intelnav/peer.key.
      '';
    };

    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Let peers in: network.listen (TCP and UDP), store.chunks (TCP) and mDNS.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.settings.role != "relay" || !hosts;
        message = "${at "role"} = relay: a relay hosts no slices; remove slices, or set role = \"host\".";
      }
      {
        assertion = !hosts || listen != null;
        message = "${at "network.listen"} = none: peers cannot reach the slices; set HOST:PORT, or remove slices.";
      }
      {
        assertion = cfg.settings.auto == null || cfg.settings.slices == "auto";
        message = "${at "auto"}: has an effect with slices = \"auto\" only; set that, or remove auto.";
      }
      {
        assertion = cfg.settings.data_dir == null;
        message = "${at "data_dir"}: the unit keeps the node's data in /var/lib/intelnav and lets it write nowhere else; remove it.";
      }
      {
        assertion = some isRelative models == "";
        message = "${at "slices"}, entry or auto: ${some isRelative models}: starts at the folder of a file in /etc; write the whole path, or the model's name.";
      }
      {
        assertion = some isHidden models == "";
        message = "${at "slices"}, entry or auto: ${some isHidden models}: the unit sees neither homes nor temporary files; put the model elsewhere.";
      }
      {
        assertion = builtins.all (each: builtins.match "0+\\.\\..*" each.layers != null) entries;
        message = "${at "entry"}: an entry runs the front layers; write layers = \"0..N\".";
      }
      {
        assertion = device != "metal";
        message = "${at "backend.device"} = metal: is for macOS; set cpu, cuda, vulkan or rocm.";
      }
      {
        assertion = !cfg.openFirewall || !(isLocal listen && isLocal chunks);
        message = "services.intelnav.openFirewall: the node listens on this machine alone; set ${at "network.listen"} = \"0.0.0.0:7717\", or remove it.";
      }
      {
        assertion = cfg.identityFile == null || builtins.match "/.*" cfg.identityFile != null;
        message = "services.intelnav.identityFile = ${toString cfg.identityFile}: write the whole path.";
      }
      {
        assertion = cfg.identityFile == null || !lib.hasPrefix builtins.storeDir cfg.identityFile;
        message = "services.intelnav.identityFile: everybody can read what is in ${builtins.storeDir}, and a key is a secret; write the path as a string, outside of it.";
      }
    ];

    warnings =
      lib.optional (!isLocal (address cfg.settings.api.listen)) (
        "${at "api.listen"} = ${toString cfg.settings.api.listen}: whoever reaches it can use this node; "
        + "127.0.0.1 is for this machine alone."
      )
      ++ lib.optional (device == "auto") (
        "${at "backend.device"} = auto: this unit shows the node no GPU, so it takes the CPU; name the GPU's backend to let it in."
      );

    environment.etc."intelnav/node.yaml".source = file;
    environment.systemPackages = [ cfg.package ];

    networking.firewall = lib.mkIf cfg.openFirewall {
      allowedTCPPorts = map (each: each.port) (builtins.filter (each: !isLocal each) [ listen chunks ]);
      allowedUDPPorts =
        lib.optional (!isLocal listen) listen.port
        # mDNS
        ++ lib.optional (!isLocal listen && cfg.settings.network.mdns != false) 5353;
    };

    systemd.services.intelnav = {
      unitConfig = unit.Unit;
      serviceConfig =
        unit.Service
        // lib.optionalAttrs (cfg.identityFile != null) {
          LoadCredential = [ "peer.key:${cfg.identityFile}" ];
          ExecStartPre = "${pkgs.coreutils}/bin/install -m 600 %d/peer.key %S/intelnav/peer.key";
        };
      wantedBy = unit.Install.WantedBy;
      # The node reads an edited file while it runs, but for what counts from its start on.
      reloadTriggers = [ file ];
      restartTriggers = [ (builtins.toJSON atStart) ];
    };
  };
}
