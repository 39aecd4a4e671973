//! Kernel modules: which files a kernel needs for a set of names, and in which order they are loaded. The lists that
//! depmod(8) makes are read as text, nothing is asked of modprobe: the kernel is not the running one.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

/// The modules of one kernel.
#[derive(Debug, Default, Clone)]
pub struct Modules {
    /// By name: the file below the modules' folder, and the files that are loaded before it, in this order.
    files: BTreeMap<String, Module>,
    /// Those that are part of the kernel itself.
    builtin: BTreeSet<String>,
    /// Other names of modules, those without wildcards: `crypto-xts`, `fs-ext4`, `net-pf-38`.
    aliases: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug, Clone)]
struct Module {
    file: String,
    needs: Vec<String>,
}

/// What came of looking for modules.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Files below the modules' folder, each after those that it needs.
    pub files: Vec<String>,
    /// Names that this kernel knows nothing of.
    pub unknown: Vec<String>,
}

/// The name of a module, of a file or typed by a person: `-` and `_` are the same in it.
pub fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.split_once(".ko").map_or(name, |(name, _)| name);
    name.replace('-', "_")
}

impl Modules {
    /// Reads the contents of `modules.dep`, `modules.builtin` and `modules.alias`. What is not understood is passed over.
    pub fn parse(dependencies: &str, builtin: &str, aliases: &str) -> Self {
        let mut modules = Self::default();
        for line in dependencies.lines() {
            let Some((file, needs)) = line.split_once(':') else { continue };
            // The last one named is needed by those before it.
            let needs = needs.split_whitespace().rev().map(str::to_owned).collect();
            modules.files.insert(name_of(file), Module { file: file.to_owned(), needs });
        }
        modules.builtin.extend(builtin.lines().map(|line| name_of(line.trim())));
        for line in aliases.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(alias), Some(name), None) =
                (words.next(), words.next(), words.next(), words.next())
                && !alias.contains(['*', '?', '['])
            {
                let names = modules.aliases.entry(alias.replace('-', "_")).or_default();
                names.insert(name.replace('-', "_"));
            }
        }
        modules
    }

    /// The files for these names, which may be aliases.
    pub fn resolve<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Resolved {
        let (mut resolved, mut taken) = (Resolved::default(), BTreeSet::new());
        for name in names {
            let found = self.named(name);
            if found.is_empty() && !self.is_builtin(name) {
                resolved.unknown.push(name.to_owned());
            }
            for module in found {
                for file in module.needs.iter().chain([&module.file]) {
                    if taken.insert(file.clone()) {
                        resolved.files.push(file.clone());
                    }
                }
            }
        }
        resolved
    }

    /// Whether it is part of the kernel itself.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&name_of(name))
    }

    /// The names of all that are files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    fn named(&self, name: &str) -> Vec<&Module> {
        let name = name_of(name);
        match (self.files.get(&name), self.aliases.get(&name)) {
            (Some(module), _) => vec![module],
            (None, Some(names)) => names.iter().filter_map(|name| self.files.get(name)).collect(),
            (None, None) => Vec::new(),
        }
    }

    /// The aliases of these files as lines of `modules.alias`, for the kernel in the machine to ask by.
    pub fn aliases_of(&self, files: &[String]) -> String {
        let here: BTreeSet<String> = files.iter().map(|file| name_of(file)).collect();
        let pairs =
            self.aliases.iter().flat_map(|(alias, names)| names.iter().map(move |name| (alias, name)));
        let lines = pairs.filter(|(_, name)| here.contains(*name));
        lines.map(|(alias, name)| format!("alias {alias} {name}\n")).collect()
    }

    /// The dependencies of these files as lines of `modules.dep`, every file by its name alone and uncompressed.
    pub fn dependencies_of(&self, files: &[String]) -> String {
        let lines = files.iter().filter_map(|file| self.files.get(&name_of(file))).map(|module| {
            let needs: String = module.needs.iter().rev().map(|file| format!(" {}", flat(file))).collect();
            format!("{}:{needs}\n", flat(&module.file))
        });
        lines.collect()
    }
}

/// The name under which a module lies in the machine: all are in one folder, uncompressed.
pub fn flat(file: &str) -> String {
    format!("{}.ko", name_of(file))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEP: &str = "kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/mbcache.ko.xz kernel/fs/jbd2/jbd2.ko.xz\n\
        kernel/fs/jbd2/jbd2.ko.xz:\nkernel/lib/crc16.ko.xz:\nkernel/fs/mbcache.ko.xz:\n\
        kernel/drivers/md/dm-crypt.ko.xz: kernel/drivers/md/dm-mod.ko.xz\nkernel/drivers/md/dm-mod.ko.xz:\n\
        kernel/crypto/xts.ko.xz:\nnonsense\n";
    const BUILTIN: &str = "kernel/crypto/aes_generic.ko\nkernel/fs/nls/nls_base.ko\n";
    const ALIAS: &str = "# made by depmod\nalias crypto-xts xts\nalias fs-ext4 ext4\nalias pci:v1AF4d*sv* virtio_pci\n\
        alias crypto-aes gone\nalias odd\n";

    fn modules() -> Modules {
        Modules::parse(DEP, BUILTIN, ALIAS)
    }

    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        let Resolved { files, unknown } =
            modules().resolve(["fs-ext4", "jbd2", "dm_crypt", "ext4", "dm-mod"]);
        let names: Vec<_> = files.iter().map(|file| name_of(file)).collect();
        assert_eq!(names, ["jbd2", "mbcache", "crc16", "ext4", "dm_mod", "dm_crypt"]);
        assert_eq!(unknown, [""; 0]);
    }

    #[test]
    fn what_is_built_in_is_no_file_and_what_is_unknown_is_told() {
        let resolved = modules().resolve(["aes_generic", "crypto-aes", "zfs"]);
        assert_eq!(resolved.files, [""; 0]);
        assert_eq!(resolved.unknown, ["crypto-aes", "zfs"]);
        assert!(modules().is_builtin("nls-base"));
    }

    #[test]
    fn the_lists_for_the_machine_are_about_its_modules_and_read_back_the_same() {
        let files = modules().resolve(["ext4", "xts"]).files;
        let (dependencies, aliases) = (modules().dependencies_of(&files), modules().aliases_of(&files));
        assert!(dependencies.contains("ext4.ko: crc16.ko mbcache.ko jbd2.ko\n"), "{dependencies}");
        assert_eq!(aliases, "alias crypto_xts xts\nalias fs_ext4 ext4\n");
        let inside = Modules::parse(&dependencies, "", &aliases);
        assert_eq!(inside.resolve(["fs-ext4"]).files, ["jbd2.ko", "mbcache.ko", "crc16.ko", "ext4.ko"]);
    }

    #[test]
    fn names_are_those_of_files() {
        assert_eq!(
            ["a/b/dm-mod.ko.zst", "virtio-pci", "nls_utf8.ko"].map(name_of),
            ["dm_mod", "virtio_pci", "nls_utf8"]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[a-z.:/ \\-\n*]{0,200}", name in "[a-z]{0,3}") {
            let modules = Modules::parse(&text, &text, &format!("alias {text}"));
            let resolved = modules.resolve([name.as_str()]);
            prop_assert!(modules.dependencies_of(&resolved.files).lines().count() <= resolved.files.len());
            let _ = modules.aliases_of(&resolved.files);
        }

        #[test]
        fn every_file_comes_after_what_it_needs(needs in prop::collection::vec(prop::collection::btree_set(0usize..9, 0..4), 9)) {
            // Module N needs only lower ones, and what these need: as depmod writes it, the deepest last.
            let mut all: Vec<Vec<usize>> = Vec::new();
            for (number, direct) in needs.iter().enumerate() {
                let mut deep: Vec<usize> = Vec::new();
                for &need in direct.iter().filter(|need| **need < number) {
                    for other in std::iter::once(need).chain(all[need].iter().copied()) {
                        deep.retain(|known| *known != other);
                        deep.push(other);
                    }
                }
                deep.sort_unstable_by(|a, b| b.cmp(a));
                all.push(deep);
            }
            let line = |(number, deep): (usize, &Vec<usize>)| {
                let deep: String = deep.iter().map(|need| format!(" k/m{need}.ko")).collect();
                format!("k/m{number}.ko:{deep}\n")
            };
            let text: String = all.iter().enumerate().map(line).collect();
            let files = Modules::parse(&text, "", "").resolve(["m8", "m5"]).files;
            for (place, file) in files.iter().enumerate() {
                let number: usize = file["k/m".len()..file.len() - 3].parse().unwrap();
                for need in &all[number] {
                    let before = files[..place].contains(&format!("k/m{need}.ko"));
                    prop_assert!(before);
                }
            }
        }
    }
}
