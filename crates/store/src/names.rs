//! The name of the unique index that refused a row, on SQLite, which tells only its columns.

use std::collections::BTreeMap;

use crate::session::Session;
use crate::{Error, Row, params};

const INDEXES: &str = "SELECT list.name AS name, list.origin AS origin, info.name AS part
    FROM pragma_index_list($1) AS list JOIN pragma_index_info(list.name) AS info
    WHERE list.\"unique\" = 1 ORDER BY list.name, info.seqno";

/// Turns `orders.caller, orders.request_id` into the index's name, as PostgreSQL gives it.
///
/// Shape: the declared name; `TABLE_pkey` for a primary key and `TABLE_COLUMN_COLUMN_key` for an unnamed UNIQUE, which is how
/// PostgreSQL names those. What was once looked up is remembered until the next migration.
pub(crate) async fn unique_index(session: &mut Session, hit: &str) -> String {
    if let Some(name) = hit.strip_prefix("index '").and_then(|rest| rest.strip_suffix('\'')) {
        return name.to_owned();
    }
    if let Some(known) = session.core.unique_name(|names| names.get(hit).cloned()) {
        return known;
    }
    let Some((table, _)) = hit.split_once('.') else { return hit.to_owned() };
    let found = match session.lookup(INDEXES, params![table]).await.and_then(|rows| group(table, &rows)) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "cannot look up the name of a unique index");
            return hit.to_owned();
        }
    };
    // A rowid table's integer key has no index of its own.
    let name = found.get(hit).cloned().unwrap_or_else(|| format!("{table}_pkey"));
    session.core.unique_name(|names| names.extend(found));
    name
}

fn group(table: &str, rows: &[Row]) -> Result<BTreeMap<String, String>, Error> {
    let mut indexes: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    for row in rows {
        let Some(part) = row.get::<Option<String>>("part")? else { continue };
        let origin = row.get("origin")?;
        indexes.entry(row.get("name")?).or_insert_with(|| (origin, Vec::new())).1.push(part);
    }
    let named = indexes.into_iter().map(|(name, (origin, parts))| {
        let columns: Vec<_> = parts.iter().map(|part| format!("{table}.{part}")).collect();
        let name = match origin.as_str() {
            "pk" => format!("{table}_pkey"),
            "u" => format!("{table}_{}_key", parts.join("_")),
            _ => name,
        };
        (columns.join(", "), name)
    });
    Ok(named.collect())
}
