use super::*;
use crate::Kind;

/// IDs that the factory gives (its documentation, its tests, schematics in use).
#[test]
fn ids_are_the_factorys() {
    let empty = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
    let table = [
        ("{}", empty),
        ("customization:", empty),
        (r#"customization: {"extraKernelArgs": [], "systemExtensions": {}}"#, empty),
        (
            "customization: {systemExtensions: {officialExtensions: [siderolabs/i915, siderolabs/intel-ucode, \
             siderolabs/tailscale]}}",
            "08086db1d88ea52b2e873f0b0c64562af7ae98f6ed83da5ee478871bbe52abd6",
        ),
        (
            "customization: {systemExtensions: {officialExtensions: [siderolabs/i915, siderolabs/mei, \
             siderolabs/tailscale]}}",
            "e60b2867d93adc72270a9a6919deb41755ede46ea45e08a25df37bb5c3919593",
        ),
        (
            "customization: {extraKernelArgs: [vga=791]}",
            "eea1f9534c46d95c4715a2f13d17eacb927c13a42ef087c79b22c3bd0c49d073",
        ),
        (
            "customization: {extraKernelArgs: [noapic, nolapic]}",
            "9cba8e32753f91a16c1837ab8abf356af021706ef284aef07380780177d9a06c",
        ),
        (
            "customization: {meta: [{value: foo, key: 0x0a}]}",
            "d308a2a5ee2277bed5fbaa104fcbc8d59122abfa737df987a95b4ca763459a7f",
        ),
        (
            "overlay: {name: rpi_generic, image: siderolabs/sbc-raspberrypi}",
            "ee21ef4a5ef808a9b7484cc0dda0f25075021691c8c09a276591eedb638ea1f9",
        ),
        (
            "customization: {secureboot: {includeWellKnownCertificates: yes}}",
            "fa8e05f142a851d3ee568eb0a8e5841eaf6b0ebc8df9a63df16ac5ed2c04f3e6",
        ),
        (
            "customization: {diskImage: {sectorSize: 4096}}",
            "92833e9ddd9bb9e11b2464fa5525429f01866306d52ebd882ee08d7918f6d1ea",
        ),
    ];
    for (yaml, id) in table {
        let schematic = Schematic::parse(yaml).unwrap();
        assert_eq!(schematic.id(), id, "{yaml}\n{}", schematic.canonical());
        assert!(is_id(id));
        assert_eq!(Schematic::parse(&schematic.canonical()).unwrap(), schematic);
    }
}

#[test]
fn every_field_stands_in_its_place() {
    let yaml = r#"
customization:
    diskImage: {sectorSize: 0x1000}
    secureboot: {includeWellKnownCertificates: true, enrollKeys: force}
    bootloader: SD-Boot
    systemExtensions: {officialExtensions: [a/b, ~]}
    meta: [{key: 012, value: no}]
    extraKernelArgs: [1.50, "a: b"]
    embeddedMachineConfiguration: "machine:\n  x: y\n"
overlay:
    options: {b: [1, {c: 1.0, no: no}], a10: 007, a9: ~}
    name: n
    image: i
owner: me
"#;
    let expected = r#"owner: me
overlay:
    image: i
    name: "n"
    options:
        a9: null
        a10: 7
        b:
            - 1
            - c: 1
              "no": "no"
customization:
    embeddedMachineConfiguration: |
        machine:
          x: y
    extraKernelArgs:
        - "1.50"
        - 'a: b'
    meta:
        - key: 10
          value: "no"
    systemExtensions:
        officialExtensions:
            - a/b
    bootloader: sd-boot
    secureboot:
        enrollKeys: force
        includeWellKnownCertificates: true
    diskImage:
        sectorSize: 4096
"#;
    assert_eq!(Schematic::parse(yaml).unwrap().canonical(), expected);
}

#[test]
fn what_is_not_a_schematic_is_refused_with_its_place() {
    let bomb: String = (1..12).fold("a0: &a0 [x,x]\n".into(), |s, i| {
        let p = format!("*a{}", i - 1);
        s + &format!("a{i}: &a{i} [{p},{p},{p},{p},{p},{p},{p},{p},{p}]\n")
    });
    let table = [
        ("customization:\n    bogus: 1\n", "line 2, column 5"),
        ("customization: {}\ncustomization: {}\n", "line 2"),
        ("customization: {}\n---\nowner: x\n", "line 3: a second document"),
        ("customization: {extraKernelArgs: foo}", "line 1"),
        ("customization: {meta: [{key: 256, value: a}]}", "line 1"),
        ("customization: {bootloader: lilo}", "lilo"),
        ("customization: {secureboot: {includeWellKnownCertificates: 2}}", "boolean"),
        ("overlay: {options: [1]}", "mapping"),
        ("overlay: {options: {a: 2024-01-02}}", "2024-01-02"),
        ("overlay: {options: {<<: {a: 1}}}", "line 1"),
        ("overlay: {options: {1: a}}", "not a string"),
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("[", "line"),
        (bomb.as_str(), "schematic: "),
    ];
    for (yaml, place) in table {
        let e = Schematic::parse(yaml).unwrap_err();
        assert_eq!(e.kind(), Kind::Usage);
        assert!(e.to_string().contains(place), "{yaml:?}: {e}");
    }
    let deep = format!("overlay: {{options: {{a: {}{}}}}}", "[".repeat(5000), "]".repeat(5000));
    Schematic::parse(&deep).unwrap_err();
}

/// Each was drawn at random and read by go.yaml.in/yaml v4.0.0-rc.4, which the factory is built with: it gives another
/// ID, or none.
#[test]
fn issue17_what_the_factorys_reader_takes_otherwise_is_refused_with_its_line() {
    let table = [
        ("customization:\n  extraKernelArgs:\n    - !local\n", "line 3: the tag !local"),
        ("overlay:\n  options:\n    a: !x 5\n", "line 3: the tag !x"),
        ("customization:\n  extraKernelArgs: [!!int 5]\n", "line 2: the tag !!int"),
        ("overlay:\n  options: !!map\n    a: [b, ! c]\n", "the tag !!map"),
        ("overlay:\n  options:\n    a: [b, !<tag:x,1:y> c]\n", "the tag "),
        ("overlay:\n  options:\n    c: [0, -0]\n", "line 3: -0, which the factory keeps"),
        ("customization:\n  meta:\n    - key: \"7\"\n      value: a\n", "line 3: a META key in quotes"),
        ("customization:\n  meta: [{value: a, key: '7'}]\n", "line 2: a META key in quotes"),
        (
            "customization:\n  meta:\n    - key: -0\n      value: a\n",
            "line 3, column 12: this is not a whole number from 0",
        ),
        ("{\"customization\": {\"extraKernelArgs\": [\"a\\ud83d\\ude00\"]}}", "line 1: the escape \\ud83d"),
        ("customization: {extraKernelArgs: [\"a\\\\\\/b\"]}", "line 1: the escape \\/"),
        ("customization:\n  extraKernelArgs:\n    - \"a\u{85}b\"\n", "line 3: a character that ends a line"),
        ("customization:\n  extraKernelArgs:\n    - a\u{2028}b\n", "line 3: a character that ends a line"),
        ("%YAML 1.2\n---\ncustomization: {}\n", "a %YAML directive for another version"),
        ("customization: {}\n...\n---\n- x\n", "line 4: a second document"),
    ];
    for (yaml, place) in table {
        let e = Schematic::parse(yaml).unwrap_err();
        assert_eq!(e.kind(), Kind::Usage);
        assert!(e.to_string().contains(place), "{yaml:?}: {e}");
    }
    // The same in text, in quotes and behind a number sign is nothing of the kind.
    let all = "%YAML 1.1\n---\ncustomization: # !x -0 \\ud83d\n  extraKernelArgs: [a!b, '! c', \"\\\\ud83d\", \
               '\\ud83d', -0, !!str 5]\n  \
               meta: [{key: 0x0a, value: '7'}]\n  embeddedMachineConfiguration: |\n    a: !x -0\n    ---\n    b: \
               \"\\ud83d\"\n---\n# end\n";
    let read = Schematic::parse(all).unwrap();
    assert_eq!(read.extra_kernel_args, ["a!b", "! c", "\\ud83d", "\\ud83d", "-0", "5"]);
    assert_eq!((read.meta, read.embedded_machine_configuration.lines().count()), (vec![(10, "7".to_owned())], 3));
}

#[test]
fn editing_gives_the_new_schematic() {
    let s = Schematic::default().with_extension("tailscale").with_extension("siderolabs/tailscale");
    assert_eq!(s.official_extensions, ["siderolabs/tailscale"]);
    assert!(!s.negates_halt());
    let n = s.negating_halt();
    assert!(n.negates_halt() && n.negating_halt() == n);
    assert!(n.canonical().contains("        - -talos.halt_if_installed\n"));
    assert_eq!(n.with_extra_kernel_arg("vga=791").extra_kernel_args, ["-talos.halt_if_installed", "vga=791"]);
}

#[test]
fn only_64_lower_case_digits_are_an_id() {
    assert!(!is_id(&"A".repeat(64)) && !is_id(&"a".repeat(63)) && !is_id("") && is_id(&"0".repeat(64)));
}
