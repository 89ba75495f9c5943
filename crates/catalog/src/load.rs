//! Reads the catalogue's files. Every problem names its file, and all problems are told at once.

use crate::config::Config;
use crate::domain::{Catalogue, Region, RegionTree, Schemas};
use crate::files::{AdapterFile, EntryPointFile, ItemFile, LINE_CHARS_MAX, SandboxEntry, ServiceRow};
use rpc::form::{is_line, is_name, is_profile, is_region};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest schema.
const SCHEMA_BYTES_MAX: usize = 1024 * 1024;

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
#[error("the catalogue cannot be loaded:\n  {}", .problems.join("\n  "))]
pub struct LoadError {
    /// One line a problem: file, place, what would be right.
    pub problems: Vec<String>,
}

/// Reads every file, or tells everything that is wrong with them.
pub(crate) fn load(config: &Config) -> Result<Catalogue, LoadError> {
    let mut reader = Reader::default();
    let folder = config.data_dir.join("catalog");
    let regions = read_regions(&mut reader, &config.data_dir);
    let entry_points: Vec<EntryPointFile> = reader.yaml(&folder.join("entry_points.yaml"));
    let items: Vec<ItemFile> = reader.yaml(&folder.join("items.yaml"));
    let adapters: Vec<AdapterFile> = reader.yaml(&folder.join("adapters.yaml"));
    let services: Vec<ServiceRow> = reader.csv(&config.data_dir.join("city_services.csv"));
    let mut sandbox: Vec<SandboxEntry> = Vec::new();
    if config.sandbox {
        for path in reader.folder(&folder.join("sandbox")) {
            sandbox.extend(reader.yaml::<Vec<SandboxEntry>>(&path));
        }
    }
    let schemas = reader.schemas(&config.schemas_dir, adapters.iter().flat_map(|adapter| adapter.items.keys()));
    let version = reader.version();
    let regions = RegionTree::build(regions).unwrap_or_else(|problem| {
        reader.problems.push(problem);
        RegionTree::default()
    });
    let mut build = Build { problems: reader.problems, regions: &regions, entries: BTreeMap::new() };
    build.hold_names(&entry_points, &items, &adapters);
    build.list_services(&services, &entry_points, &items);
    build.list_sandbox(&sandbox, &entry_points, &items);
    let bindings = build.bind(&adapters, &items);
    if !build.problems.is_empty() {
        return Err(LoadError { problems: build.problems });
    }
    let entries = build.entries;
    let items = items.into_iter().map(|item| (item.item.clone(), item.info())).collect();
    Ok(Catalogue { version, regions, items, entries, bindings, schemas })
}

fn read_regions(reader: &mut Reader, data_dir: &Path) -> Vec<Region> {
    #[derive(serde::Deserialize)]
    struct Place {
        code: String,
        level: u8,
        name: String,
        parent: String,
        #[serde(rename = "virtual")]
        placeholder: u8,
    }
    #[derive(serde::Deserialize)]
    struct Town {
        code12: String,
        name: String,
        county: String,
    }
    let nation = Region {
        code: crate::domain::NATION.into(),
        name: "全国".into(),
        level: 0,
        parent: String::new(),
        placeholder: true,
    };
    let places: Vec<Place> = reader.csv(&data_dir.join("regions_pca.csv"));
    let towns: Vec<Town> = reader.csv(&data_dir.join("regions_towns.csv.gz"));
    // A prefecture without counties stands once more as its own county (东莞, 中山, 儋州): one place, one region.
    let places = places.into_iter().filter(|p| p.code != p.parent).map(|p| Region {
        code: p.code,
        name: p.name,
        level: p.level,
        parent: p.parent,
        placeholder: p.placeholder != 0,
    });
    let towns = towns.into_iter().map(|t| Region {
        code: t.code12.get(..9).unwrap_or(&t.code12).to_owned(),
        name: t.name,
        level: 4,
        parent: t.county,
        placeholder: false,
    });
    let regions: Vec<_> = std::iter::once(nation).chain(places).chain(towns).collect();
    for Region { code, name, .. } in &regions {
        if !is_region(code) || !is_line(name, LINE_CHARS_MAX) {
            reader
                .problems
                .push(format!("region {code} needs a code of 6 or 9 digits and a name of 1 to 64 characters"));
        }
    }
    regions
}

/// Gathers the entries and every problem on the way.
struct Build<'a> {
    problems: Vec<String>,
    regions: &'a RegionTree,
    entries: BTreeMap<crate::domain::EntryKey, crate::domain::Entry>,
}

impl Build<'_> {
    /// Holds what the contract answers to the lengths that it promises.
    fn hold_names(&mut self, entry_points: &[EntryPointFile], items: &[ItemFile], adapters: &[AdapterFile]) {
        const NAME: &str = "must be 1 to 64 characters of a-z, 0-9, ., _ and -";
        const LINE: &str = "must be 1 to 64 characters on one line";
        for entry_point in entry_points {
            self.hold(is_name(&entry_point.id), "entry_points.yaml", &entry_point.id, NAME);
        }
        for item in items {
            self.hold(is_name(&item.item), "items.yaml", &item.item, NAME);
            self.hold(is_line(&item.name, LINE_CHARS_MAX), "items.yaml", &item.name, LINE);
        }
        for adapter in adapters {
            let what = "must be 1 to 70 characters, such as traffic/430100";
            self.hold(is_profile(&adapter.profile), "adapters.yaml", &adapter.profile, what);
            for (item, policy) in &adapter.items {
                for problem in policy.problems() {
                    self.hold(false, "adapters.yaml", &format!("{}: {item}", adapter.profile), problem);
                }
            }
        }
    }

    fn hold(&mut self, fits: bool, file: &str, which: &str, what: &str) {
        if !fits {
            self.problems.push(format!("{file}: {which} {what}"));
        }
    }

    /// Lists each row of city_services.csv under each entry point that its channels mean.
    fn list_services(&mut self, rows: &[ServiceRow], entry_points: &[EntryPointFile], items: &[ItemFile]) {
        let mut by_name = BTreeMap::new();
        for item in items {
            for name in &item.names {
                if by_name.insert(name.name.as_str(), (item, name.depth.unwrap_or(item.depth))).is_some() {
                    self.problems.push(format!("items.yaml: the name {} stands under two items", name.name));
                }
            }
        }
        for (line, row) in rows.iter().enumerate().map(|(index, row)| (index + 2, row)) {
            let Some(&(item, depth)) = by_name.get(row.service.as_str()) else {
                self.problems.push(format!("city_services.csv:{line}: no item of items.yaml is named {}", row.service));
                continue;
            };
            let region = if row.gb2260.is_empty() { crate::domain::NATION } else { row.gb2260.as_str() };
            if self.regions.get(region).is_none() {
                self.problems.push(format!("city_services.csv:{line}: region {region} is not in the tree"));
            }
            for channel in row.channel.split('|') {
                let Some(entry_point) = entry_points.iter().find(|e| e.channels.iter().any(|c| c == channel)) else {
                    self.problems.push(format!(
                        "city_services.csv:{line}: no entry point of entry_points.yaml has the channel {channel}"
                    ));
                    continue;
                };
                let key = (region.to_owned(), item.item.clone(), entry_point.id.clone());
                let source = format!("article {}", row.article);
                let fits = is_line(&row.service, LINE_CHARS_MAX) && is_line(&source, LINE_CHARS_MAX);
                self.hold(
                    fits,
                    "city_services.csv",
                    &format!("line {line}"),
                    "has a service or article longer than 64 characters",
                );
                let entry = crate::domain::Entry {
                    depth: depth.into(),
                    display_name: row.service.clone(),
                    source,
                    sandbox_only: false,
                };
                Catalogue::list(&mut self.entries, key, entry);
            }
        }
    }

    fn list_sandbox(&mut self, rows: &[SandboxEntry], entry_points: &[EntryPointFile], items: &[ItemFile]) {
        for row in rows {
            let known = entry_points.iter().any(|e| e.id == row.entry_point)
                && items.iter().any(|i| i.item == row.item)
                && self.regions.get(&row.region).is_some();
            if !known {
                self.problems.push(format!(
                    "catalog/sandbox: {} × {} × {} names something that is not in the catalogue",
                    row.item, row.region, row.entry_point
                ));
            }
            let key = (row.region.clone(), row.item.clone(), row.entry_point.clone());
            let entry = row.entry();
            let fits = is_line(&entry.display_name, LINE_CHARS_MAX) && is_line(&entry.source, LINE_CHARS_MAX);
            let which = format!("{} × {} × {}", row.item, row.region, row.entry_point);
            self.hold(
                fits,
                "catalog/sandbox",
                &which,
                "has a display_name or source that is not 1 to 64 characters on one line",
            );
            Catalogue::list(&mut self.entries, key, entry);
        }
    }

    fn bind(
        &mut self,
        adapters: &[AdapterFile],
        items: &[ItemFile],
    ) -> BTreeMap<(String, String), crate::domain::Binding> {
        let mut bindings = BTreeMap::new();
        let mut profiles = BTreeSet::new();
        for adapter in adapters {
            if !profiles.insert(&adapter.profile) {
                self.problems.push(format!("adapters.yaml: the profile {} stands twice", adapter.profile));
            }
            if self.regions.get(&adapter.region).is_none() {
                self.problems.push(format!("adapters.yaml: region {} is not in the tree", adapter.region));
            }
            for (item, policy) in &adapter.items {
                if !items.iter().any(|i| i.item == *item) {
                    self.problems.push(format!("adapters.yaml: {}: {item} is not in items.yaml", adapter.profile));
                }
                for (key, is_set) in policy.unserved() {
                    if is_set {
                        self.problems.push(format!(
                            "adapters.yaml: {}: {item}: {key} is not enforced yet, and nobody would be checked: take it out",
                            adapter.profile
                        ));
                    }
                }
                let key = (item.clone(), adapter.region.clone());
                if bindings.insert(key, policy.binding(&adapter.profile)).is_some() {
                    self.problems.push(format!("adapters.yaml: two profiles serve {item} in {}", adapter.region));
                }
            }
        }
        bindings
    }
}

/// Reads files, keeps their digest for the version, and gathers what is wrong.
struct Reader {
    problems: Vec<String>,
    digest: aws_lc_rs::digest::Context,
}

impl Default for Reader {
    fn default() -> Self {
        Self { problems: Vec::new(), digest: aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256) }
    }
}

impl Reader {
    fn bytes(&mut self, path: &Path) -> Vec<u8> {
        let bytes = std::fs::read(path).unwrap_or_else(|error| {
            self.problems.push(format!("{}: {error}; is `catalog.data_dir` right?", path.display()));
            Vec::new()
        });
        self.digest.update(&bytes);
        bytes
    }

    fn yaml<T: serde::de::DeserializeOwned + Default>(&mut self, path: &Path) -> T {
        let bytes = self.bytes(path);
        if bytes.is_empty() {
            return T::default();
        }
        serde_yaml_ng::from_slice(&bytes).unwrap_or_else(|error| {
            self.problems.push(format!("{}: {error}", path.display()));
            T::default()
        })
    }

    fn csv<T: serde::de::DeserializeOwned>(&mut self, path: &Path) -> Vec<T> {
        let mut bytes = self.bytes(path);
        if path.extension().is_some_and(|e| e == "gz") {
            let mut plain = Vec::new();
            if let Err(error) = flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain) {
                self.problems.push(format!("{}: {error}", path.display()));
            }
            bytes = plain;
        }
        let mut rows = Vec::new();
        for row in csv::Reader::from_reader(bytes.as_slice()).into_deserialize() {
            match row {
                Ok(row) => rows.push(row),
                Err(error) => self.problems.push(format!("{}: {error}", path.display())),
            }
        }
        rows
    }

    /// The schemas of the items that a profile serves, `<item>/{input,result}.json`.
    fn schemas<'a>(&mut self, folder: &Path, items: impl Iterator<Item = &'a String>) -> BTreeMap<String, Schemas> {
        let items: BTreeSet<_> = items.collect();
        let mut all = BTreeMap::new();
        for item in items {
            let (input, of_input) = self.schema(&folder.join(item).join("input.json"));
            let (result, of_result) = self.schema(&folder.join(item).join("result.json"));
            if of_input != of_result {
                self.problems.push(format!("{item}: its input has version {of_input}, its result {of_result}"));
            }
            all.insert(item.clone(), Schemas { input, result, version: of_input });
        }
        all
    }

    /// The text of a schema and its version; 0 where there is none.
    fn schema(&mut self, path: &Path) -> (String, i32) {
        #[derive(Default, serde::Deserialize)]
        struct Versioned {
            #[serde(rename = "x-lastmile-version")]
            version: i32,
        }
        let bytes = std::fs::read(path).unwrap_or_else(|error| {
            self.problems.push(format!("{}: {error}; is `catalog.schemas_dir` right?", path.display()));
            Vec::new()
        });
        self.digest.update(&bytes);
        if bytes.is_empty() {
            return (String::new(), 0);
        }
        if bytes.len() > SCHEMA_BYTES_MAX {
            self.problems.push(format!("{}: a schema has at most 1 MiB", path.display()));
            return (String::new(), 0);
        }
        let read = serde_json::from_slice::<Versioned>(&bytes).map_err(|error| error.to_string());
        let text = String::from_utf8(bytes).map_err(|error| error.to_string());
        match (read, text) {
            (Ok(Versioned { version }), Ok(text)) if version > 0 => (text, version),
            (read, text) => {
                let why = read.err().or(text.err()).unwrap_or_else(|| "its x-lastmile-version is not positive".into());
                self.problems.push(format!("{}: {why}", path.display()));
                (String::new(), 0)
            }
        }
    }

    /// The files of a folder in name order.
    fn folder(&mut self, path: &Path) -> Vec<PathBuf> {
        let listed = std::fs::read_dir(path).and_then(|entries| entries.map(|e| Ok(e?.path())).collect());
        let mut files: Vec<PathBuf> = listed.unwrap_or_else(|error: std::io::Error| {
            self.problems.push(format!("{}: {error}", path.display()));
            Vec::new()
        });
        files.sort();
        files
    }

    /// A positive number made of the content of all files read so far.
    fn version(&self) -> i64 {
        let digest = self.digest.clone().finish();
        let head = digest.as_ref().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        i64::try_from(head >> 1).unwrap_or(i64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::common::v1::Depth;
    use std::path::PathBuf;

    fn data_dir() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data")
    }

    fn catalogue(sandbox: bool) -> Catalogue {
        let schemas_dir = data_dir().join("../departments/schemas");
        load(&Config { data_dir: data_dir(), schemas_dir, sandbox }).expect("the project's own files")
    }

    #[test]
    fn every_row_of_the_articles_is_listed() {
        let catalogue = catalogue(false);
        let mut reader = Reader::default();
        let rows: Vec<ServiceRow> = reader.csv(&data_dir().join("city_services.csv"));
        assert_eq!(rows.len(), 213);
        let places: BTreeSet<_> = catalogue.entries.keys().map(|(region, _, _)| region).collect();
        // The articles' 32 names are 31 codes: (全国) and (平台) both mean the nation.
        assert_eq!(places.len(), 31);
        let items: Vec<ItemFile> = reader.yaml(&data_dir().join("catalog/items.yaml"));
        let entry_points: Vec<EntryPointFile> = reader.yaml(&data_dir().join("catalog/entry_points.yaml"));
        let mut listed = 0;
        for row in &rows {
            let region = if row.gb2260.is_empty() { crate::domain::NATION } else { &row.gb2260 };
            let named = |item: &&ItemFile| item.names.iter().any(|name| name.name == row.service);
            let item = items.iter().find(named).expect("an item of that name");
            let depth = item.names.iter().find(|name| name.name == row.service).and_then(|name| name.depth);
            for channel in row.channel.split('|') {
                let through = entry_points.iter().find(|one| one.channels.iter().any(|of| of == channel));
                let key = (region.to_owned(), item.item.clone(), through.expect("an entry point").id.clone());
                let entry = &catalogue.entries[&key];
                // What several articles tell of is listed at its deepest.
                assert!(entry.depth as i32 >= Depth::from(depth.unwrap_or(item.depth)) as i32, "{key:?}");
                listed += 1;
            }
        }
        assert!(listed >= rows.len() && reader.problems.is_empty(), "{:?}", reader.problems);
    }

    #[test]
    fn changsha_pays_and_taiyuan_pays_in_the_sandbox_only() {
        let key = |region: &str, entry_point: &str| {
            (region.to_owned(), "traffic.violation".to_owned(), entry_point.to_owned())
        };
        let (real, sandbox) = (catalogue(false), catalogue(true));
        assert_eq!(real.entries[&key("430100", "wechat")].depth, Depth::Pay);
        assert_eq!(real.entries[&key("140100", "alipay")].depth, Depth::Query);
        assert!(!real.entries.contains_key(&key("140100", "wechat")));
        assert!(!real.entries.contains_key(&key("430100", "alipay")));
        for added in [key("140100", "wechat"), key("430100", "alipay")] {
            let added = &sandbox.entries[&added];
            assert!(added.sandbox_only && added.depth == Depth::Pay);
        }
        assert_ne!(real.version, sandbox.version);
    }

    #[test]
    fn every_problem_is_told_with_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [
            (
                "catalog/entry_points.yaml",
                "- { id: wechat, name: 微信, super_app: true, channels: [微信], colour: green }",
            ),
            ("catalog/items.yaml", "[]"),
            (
                "catalog/adapters.yaml",
                "- { profile: traffic/430100, region: \"1\", items: { ghost: { timeout: 8s, concurrency_max: 1, residents_only: true, currency: cny } } }",
            ),
            ("schemas/ghost/input.json", "{ \"type\": \"object\" }"),
            ("regions_pca.csv", "code,level,name,parent,full_name,virtual\n430000,1,湖南省,,湖南省,0\n"),
            ("city_services.csv", "city,gb2260,service,channel,article,note\n长沙市,430100,违章查询,微信,000,\n"),
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        let schemas_dir = folder.path().join("schemas");
        let config = Config { data_dir: folder.path().into(), schemas_dir, ..Config::default() };
        let told = load(&config).expect_err("nothing is right").to_string();
        for part in [
            "regions_towns.csv.gz",
            "entry_points.yaml: ",
            "colour",
            "city_services.csv:2: no item of items.yaml is named 违章查询",
            "adapters.yaml: region 1 is not in the tree",
            "adapters.yaml: traffic/430100: ghost: residents_only is not enforced yet",
            "adapters.yaml: traffic/430100: ghost currency must be an ISO 4217 code",
            "ghost/input.json: missing field `x-lastmile-version`",
            "ghost/result.json: No such file",
        ] {
            assert!(told.contains(part), "{part} in:\n{told}");
        }
    }
}
