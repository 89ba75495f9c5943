//! A catalogue and departments of a test's own: the project's files with something else in them.

use std::fs;
use std::path::{Path, PathBuf};

/// A copy of the project's data; it goes with this handle.
pub struct Catalogue(tempfile::TempDir);

impl Catalogue {
    /// Copies what the catalogue reads, and replaces one text by another in one of the files of `catalog/`.
    ///
    /// Errors: a text that is not in the file, so that no test goes by a file that it did not change.
    pub fn with(file: &str, from: &str, to: &str) -> anyhow::Result<Self> {
        let place = tempfile::Builder::new().prefix("lastmile-catalogue-").tempdir()?;
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data");
        for name in ["regions_pca.csv", "regions_towns.csv.gz", "city_services.csv"] {
            fs::copy(data.join(name), place.path().join(name))?;
        }
        copy(&data.join("catalog"), &place.path().join("catalog"))?;
        let changed = place.path().join("catalog").join(file);
        let text = fs::read_to_string(&changed)?;
        anyhow::ensure!(text.contains(from), "{file} does not say {from}");
        fs::write(changed, text.replace(from, to))?;
        Ok(Self(place))
    }

    /// For `catalog.data_dir`.
    pub fn data_dir(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

/// A copy of the departments' profiles and schemas; it goes with this handle.
pub struct Departments(tempfile::TempDir);

impl Departments {
    /// Copies them.
    pub fn copied() -> anyhow::Result<Self> {
        let copied = Self(tempfile::Builder::new().prefix("lastmile-departments-").tempdir()?);
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../departments"), &copied.dir())?;
        Ok(copied)
    }

    /// Replaces one text by another in every profile.
    ///
    /// Errors: a profile that does not have the text.
    pub fn with(self, from: &str, to: &str) -> anyhow::Result<Self> {
        for profile in fs::read_dir(self.dir().join("traffic"))? {
            let profile = profile?.path();
            let text = fs::read_to_string(&profile)?;
            anyhow::ensure!(text.contains(from), "{} does not say {from}", profile.display());
            fs::write(profile, text.replace(from, to))?;
        }
        Ok(self)
    }

    /// Gives an item the schemas of another.
    pub fn and_schemas(self, of: &str, item: &str) -> anyhow::Result<Self> {
        copy(&self.schemas_dir().join(of), &self.schemas_dir().join(item))?;
        Ok(self)
    }

    /// For `adapter.departments_dir`.
    pub fn dir(&self) -> PathBuf {
        self.0.path().join("departments")
    }

    /// For `catalog.schemas_dir`.
    pub fn schemas_dir(&self) -> PathBuf {
        self.dir().join("schemas")
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
