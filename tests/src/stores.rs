//! Everything that the stores of a cluster hold, as texts in which personal data are searched.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};

/// Name and content.
pub type Text = (String, Vec<u8>);

/// Everything that a database holds, each column of each table a text. Nobody may write it meanwhile.
pub async fn contents(store: &store::Config) -> anyhow::Result<Vec<Text>> {
    match (store.url.strip_prefix("sqlite:").map(Path::new), &store.schema) {
        (Some(file), _) => sqlite(file).await,
        (None, Some(schema)) => postgres(&store.url, schema).await,
        (None, None) => anyhow::bail!("a store that nobody can search"),
    }
}

/// Every column of every table of a PostgreSQL schema, each a text.
async fn postgres(url: &str, schema: &str) -> anyhow::Result<Vec<Text>> {
    let mut connection = sqlx::PgConnection::connect(url).await?;
    let columns = sqlx::query_as::<_, (String, String, String)>(
        "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns
        WHERE table_schema = $1 ORDER BY table_name, ordinal_position",
    );
    let columns = columns.bind(schema).fetch_all(&mut connection).await?;
    anyhow::ensure!(!columns.is_empty(), "schema {schema} has no tables");
    let mut texts = Vec::new();
    for (table, column, kind) in columns {
        let value = match kind.as_str() {
            "bytea" => format!("\"{column}\""),
            _ => format!("convert_to(\"{column}\"::text, 'UTF8')"),
        };
        let sql = format!("SELECT {value} FROM \"{schema}\".\"{table}\" WHERE \"{column}\" IS NOT NULL");
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await?;
        let values = rows.iter().map(|row| row.try_get::<Vec<u8>, _>(0)).collect::<Result<Vec<_>, _>>()?;
        texts.push((format!("{schema}.{table}.{column}"), values.join(&b'\n')));
    }
    connection.close().await?;
    Ok(texts)
}

/// Every column of every table of an SQLite file, each a text. What its pages hold besides is for a search over the file's own bytes. A
/// copy is read: the file belongs to the process that serves it.
async fn sqlite(file: &Path) -> anyhow::Result<Vec<Text>> {
    let copies = tempfile::tempdir()?;
    let copy = copies.path().join("copy.db");
    std::fs::copy(file, &copy).with_context(|| file.display().to_string())?;
    let ahead = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    if ahead(file).exists() {
        std::fs::copy(ahead(file), ahead(&copy))?;
    }
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(&copy).connect().await?;
    let columns = sqlx::query_as::<_, (String, String)>(
        "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c
        WHERE m.type = 'table' ORDER BY m.name, c.cid",
    );
    let columns = columns.fetch_all(&mut connection).await?;
    anyhow::ensure!(!columns.is_empty(), "{} has no tables", file.display());
    let mut texts = Vec::new();
    for (table, column) in columns {
        let sql = format!("SELECT CAST(\"{column}\" AS BLOB) FROM \"{table}\" WHERE \"{column}\" IS NOT NULL");
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await?;
        let values = rows.iter().map(|row| row.try_get::<Vec<u8>, _>(0)).collect::<Result<Vec<_>, _>>()?;
        texts.push((format!("{}.{table}.{column}", file.display()), values.join(&b'\n')));
    }
    connection.close().await?;
    Ok(texts)
}

/// Every key below a prefix in Redis with its value, as one text.
pub async fn redis(url: &str, prefix: &str) -> anyhow::Result<Text> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let (mut text, mut cursor) = (Vec::new(), 0_u64);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(1_000);
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(&mut connection).await?;
        for key in keys {
            text.extend(&key);
            for value in values(&mut connection, &key).await? {
                text.push(b'\n');
                text.extend(value);
            }
            text.push(b'\n');
        }
        cursor = next;
        if cursor == 0 {
            return Ok((format!("Redis below {prefix}"), text));
        }
    }
}

/// What stands under a key, which may be gone meanwhile.
async fn values(connection: &mut redis::aio::MultiplexedConnection, key: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
    let kind: String = redis::cmd("TYPE").arg(key).query_async(connection).await?;
    let (command, range): (_, &[i64]) = match kind.as_str() {
        "none" => return Ok(Vec::new()),
        "string" => ("GET", &[]),
        "hash" => ("HGETALL", &[]),
        "set" => ("SMEMBERS", &[]),
        "list" => ("LRANGE", &[0, -1]),
        "zset" => ("ZRANGE", &[0, -1]),
        other => anyhow::bail!("a {other} in Redis, which nobody here reads"),
    };
    let mut asked = redis::cmd(command);
    asked.arg(key).arg(range);
    if kind == "string" {
        let value: Option<Vec<u8>> = asked.query_async(connection).await?;
        return Ok(value.into_iter().collect());
    }
    Ok(asked.query_async(connection).await?)
}
