//! What identity keeps in SQL. The schema and its reasons: `migrations/`.

use runtime::Timestamp;
use store::{Db, Error, Migration, Read, Row, Tx, params};

use crate::domain::person::{AccountKey, PersonKey};

/// The schema of identity.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "identity",
        sqlite: include_str!("../migrations/sqlite/0001_identity.sql"),
        postgres: include_str!("../migrations/postgres/0001_identity.sql"),
    },
    Migration {
        version: 2,
        name: "pepper",
        sqlite: include_str!("../migrations/sqlite/0002_pepper.sql"),
        postgres: include_str!("../migrations/postgres/0002_pepper.sql"),
    },
];

/// Rows that one transaction of the purge takes away at most.
const PURGE_ROWS_MAX: i64 = 1_000;

const USE_JTI: &str = "INSERT INTO used_jti (digest, expires_at) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING";
const PURGE_JTI: &str =
    "DELETE FROM used_jti WHERE digest IN (SELECT digest FROM used_jti WHERE expires_at < $1 LIMIT $2)";

const LINK: &str = "INSERT INTO account_link (entry_point, account, person, level, created_at, seen_at, version)
    VALUES ($1, $2, $3, $4, $5, $5, 1) ON CONFLICT (entry_point, account) DO NOTHING";
const LINK_READ: &str =
    "SELECT person, level, seen_at, version FROM account_link WHERE entry_point = $1 AND account = $2";
const LINK_RENEW: &str = "UPDATE account_link SET person = $3, level = $4, seen_at = $5, version = version + 1
    WHERE entry_point = $1 AND account = $2 AND version = $6";

const KEY_ADD: &str = "INSERT INTO public_key (kid, owner, key_use, jwk_json, created_at)
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (kid) DO NOTHING";
const KEY_READ: &str = "SELECT kid, owner, key_use, jwk_json, created_at FROM public_key WHERE kid = $1";
const KEY_COUNT: &str = "SELECT COUNT(*) AS keys FROM public_key WHERE owner = $1 AND key_use = $2";
const KEYS: &str = "SELECT kid, owner, key_use, jwk_json, created_at FROM public_key
    ORDER BY owner, key_use, created_at, kid LIMIT 10000";
const VERSION: &str = "SELECT version FROM key_list WHERE id = 1";
/// The version is the microsecond of the change where that is greater: so the list of a database that was made anew never has the
/// version of another list that a peer still holds.
const VERSION_BUMP: &str =
    "UPDATE key_list SET version = CASE WHEN version < $1 THEN $1 ELSE version + 1 END WHERE id = 1";

const PEPPER_READ: &str = "SELECT fingerprint FROM pepper WHERE id = 1";
const PEPPER_KEEP: &str = "INSERT INTO pepper (id, fingerprint) VALUES (1, $1) ON CONFLICT (id) DO NOTHING";

const GRANT_ADD: &str =
    "INSERT INTO case_grant (request_id, digest, token_digest, person, sealed, expires_at, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (request_id) DO NOTHING";
const GRANT_READ: &str =
    "SELECT digest, token_digest, person, sealed, expires_at FROM case_grant WHERE request_id = $1";
const PURGE_GRANTS: &str = "DELETE FROM case_grant WHERE request_id IN
    (SELECT request_id FROM case_grant WHERE expires_at < $1 LIMIT $2)";

/// A public key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRow {
    /// RFC 7638 thumbprint.
    pub(crate) kid: String,
    /// Role or mesh key.
    pub(crate) owner: String,
    /// The number of the contract's `KeyUse`.
    pub(crate) key_use: i32,
    /// Public JWK as JSON.
    pub(crate) jwk_json: String,
    /// When it was registered.
    pub(crate) created_at: Timestamp,
}

/// How the registration of a key came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// It is kept now, or was already, for the same owner and use.
    Kept(KeyRow),
    /// The same key belongs to another owner or use.
    Taken,
    /// The owner has as many keys as one may have.
    Full,
}

/// A case grant as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrantRow {
    /// Digest of the request that it answered, without the citizen token.
    pub(crate) digest: Vec<u8>,
    /// Digest of the citizen token.
    pub(crate) token_digest: Vec<u8>,
    /// The person's key.
    pub(crate) person: Vec<u8>,
    /// The sealed grant.
    pub(crate) sealed: String,
    /// When it ends.
    pub(crate) expires_at: Timestamp,
}

/// What is known of an account before it is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linked {
    /// The account was never seen before.
    New,
    /// The same person as before.
    Known,
    /// Another person than before.
    Changed,
}

/// Notes that a jti was used; false when it had been used before.
pub(crate) async fn use_jti(tx: &mut Tx, digest: &[u8; 32], expires_at: Timestamp) -> Result<bool, Error> {
    Ok(tx.execute(USE_JTI, params![digest, expires_at]).await? == 1)
}

/// Notes who stands behind an account. Writes only when there is something new or the day is another.
pub(crate) async fn link(
    tx: &mut Tx,
    entry_point: &str,
    account: &AccountKey,
    person: &PersonKey,
    level: i32,
    now: Timestamp,
) -> Result<Linked, Error> {
    let (account, person) = (account.bytes(), person.bytes());
    if tx.execute(LINK, params![entry_point, account, person, level, now]).await? == 1 {
        return Ok(Linked::New);
    }
    let Some(row) = tx.fetch_opt(LINK_READ, params![entry_point, account]).await? else { return Ok(Linked::New) };
    let (known_person, known_level): (Vec<u8>, i64) = (row.get("person")?, row.get("level")?);
    let (seen_at, version): (Timestamp, i64) = (row.get("seen_at")?, row.get("version")?);
    let same = known_person == person;
    if !same || known_level != i64::from(level) || now.since(seen_at) > DAY {
        // Another exchange of the same account may have been first; then its word is as new as this one.
        tx.execute(LINK_RENEW, params![entry_point, account, person, level, now, version]).await?;
    }
    Ok(if same { Linked::Known } else { Linked::Changed })
}

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// Keeps a public key. At most `keys_max` for one owner and use.
pub(crate) async fn add_key(tx: &mut Tx, key: &KeyRow, keys_max: i64) -> Result<Registered, Error> {
    if let Some(kept) = tx.fetch_opt(KEY_READ, params![key.kid]).await? {
        return judge(key, read_key(&kept)?);
    }
    // The one row of the list is the lock under which keys are counted and added.
    tx.execute(VERSION_BUMP, params![key.created_at]).await?;
    let count = tx.fetch_opt(KEY_COUNT, params![key.owner, key.key_use]).await?;
    if count.map_or(Ok(0), |row| row.get::<i64>("keys"))? >= keys_max {
        return Ok(Registered::Full);
    }
    let added = tx.execute(KEY_ADD, params![key.kid, key.owner, key.key_use, key.jwk_json, key.created_at]).await?;
    if added == 1 {
        return Ok(Registered::Kept(key.clone()));
    }
    match tx.fetch_opt(KEY_READ, params![key.kid]).await? {
        Some(kept) => judge(key, read_key(&kept)?),
        None => Ok(Registered::Taken),
    }
}

fn judge(asked: &KeyRow, kept: KeyRow) -> Result<Registered, Error> {
    let same = kept.owner == asked.owner && kept.key_use == asked.key_use;
    Ok(if same { Registered::Kept(kept) } else { Registered::Taken })
}

/// Reads the version of the list of keys.
pub(crate) async fn key_version(from: &mut impl Read) -> Result<i64, Error> {
    from.fetch_opt(VERSION, params![]).await?.map_or(Ok(0), |row| row.get("version"))
}

/// Reads the list of keys with its version, by owner, use and age.
pub(crate) async fn keys(db: &Db) -> Result<(i64, Vec<KeyRow>), Error> {
    let mut reader = db.read().await?;
    // The version is read first: should a key be added between the two, the list is newer than its version and is read again.
    let version = key_version(&mut reader).await?;
    let rows = reader.fetch_all(KEYS, params![]).await?;
    Ok((version, rows.iter().map(read_key).collect::<Result<_, _>>()?))
}

fn read_key(row: &Row) -> Result<KeyRow, Error> {
    let key_use: i64 = row.get("key_use")?;
    Ok(KeyRow {
        kid: row.get("kid")?,
        owner: row.get("owner")?,
        key_use: i32::try_from(key_use).unwrap_or_default(),
        jwk_json: row.get("jwk_json")?,
        created_at: row.get("created_at")?,
    })
}

/// Reads which pepper the people of this store were counted under; `None` when it has seen none.
pub(crate) async fn pepper(from: &mut impl Read) -> Result<Option<Vec<u8>>, Error> {
    from.fetch_opt(PEPPER_READ, params![]).await?.map(|row| row.get("fingerprint")).transpose()
}

/// Keeps which pepper it is, where none is kept; returns the one that is.
pub(crate) async fn keep_pepper(tx: &mut Tx, fingerprint: &[u8; 32]) -> Result<Option<Vec<u8>>, Error> {
    tx.execute(PEPPER_KEEP, params![fingerprint]).await?;
    pepper(tx).await
}

/// Finds the grant that a request id was answered with.
pub(crate) async fn grant(from: &mut impl Read, request_id: &str) -> Result<Option<GrantRow>, Error> {
    let Some(row) = from.fetch_opt(GRANT_READ, params![request_id]).await? else { return Ok(None) };
    Ok(Some(GrantRow {
        digest: row.get("digest")?,
        token_digest: row.get("token_digest")?,
        person: row.get("person")?,
        sealed: row.get("sealed")?,
        expires_at: row.get("expires_at")?,
    }))
}

/// Keeps a grant; returns the one that is kept, which is another's when another was first.
pub(crate) async fn add_grant(
    tx: &mut Tx,
    request_id: &str,
    grant: &GrantRow,
    now: Timestamp,
) -> Result<GrantRow, Error> {
    let GrantRow { digest, token_digest, person, sealed, expires_at } = grant;
    let values = params![request_id, digest, token_digest, person, sealed, expires_at, now];
    if tx.execute(GRANT_ADD, values).await? == 1 {
        return Ok(grant.clone());
    }
    let kept = self::grant(tx, request_id).await?;
    Ok(kept.unwrap_or_else(|| grant.clone()))
}

/// Takes away what is of no use after its end; returns whether there may be more.
pub(crate) async fn purge(tx: &mut Tx, before: Timestamp) -> Result<bool, Error> {
    let jti = tx.execute(PURGE_JTI, params![before, PURGE_ROWS_MAX]).await?;
    let grants = tx.execute(PURGE_GRANTS, params![before, PURGE_ROWS_MAX]).await?;
    let full = u64::try_from(PURGE_ROWS_MAX).unwrap_or(u64::MAX);
    Ok(jti >= full || grants >= full)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::document::Document;
    use crate::domain::person::Pepper;

    async fn db() -> Db {
        let db = Db::simulated().expect("opens");
        db.migrate(MIGRATIONS).await.expect("migrates");
        db
    }

    #[tokio::test]
    async fn an_account_is_linked_renewed_and_relinked() {
        let db = db().await;
        let pepper = Pepper::new(&[1; 32]);
        let person = |number: &str| {
            let document = Document::check("passport", number, jiff::civil::date(2026, 1, 1));
            pepper.person(&document.expect("keeps the rules"))
        };
        let account = pepper.account("wechat", "o1");
        let (zhang, li) = (person("E12345678"), person("E87654321"));
        let now = Timestamp::from_micros(1);
        let later = now.plus(Duration::from_secs(25 * 3_600));
        for (person, level, at, outcome, version, seen) in [
            (&zhang, 2, now, Linked::New, 1, now),
            (&zhang, 2, now.plus(Duration::from_secs(60)), Linked::Known, 1, now),
            (&zhang, 3, now.plus(Duration::from_secs(60)), Linked::Known, 2, now.plus(Duration::from_secs(60))),
            (&zhang, 3, later, Linked::Known, 3, later),
            (&li, 3, later, Linked::Changed, 4, later),
        ] {
            let work = async |mut tx: Tx| link(&mut tx, "wechat", &account, person, level, at).await;
            assert_eq!(db.transact(work).await.expect("links"), outcome);
            let mut reader = db.read().await.expect("reads");
            let row = reader.fetch_opt(LINK_READ, params!["wechat", account.bytes()]).await.expect("reads");
            let row = row.expect("is there");
            assert_eq!(row.get::<i64>("version").expect("a number"), version);
            assert_eq!(row.get::<Timestamp>("seen_at").expect("a time"), seen);
            assert_eq!(row.get::<Vec<u8>>("person").expect("bytes"), person.bytes());
        }
    }

    #[tokio::test]
    async fn the_version_of_a_new_list_is_never_one_that_a_peer_may_hold_of_an_old_one() {
        let key = |kid: &str, at| KeyRow {
            kid: kid.to_owned(),
            owner: "cases".to_owned(),
            key_use: 1,
            jwk_json: "{}".to_owned(),
            created_at: Timestamp::from_micros(at),
        };
        let version = async |db: &Db| key_version(&mut db.read().await.expect("reads")).await.expect("reads");
        let add = async |db: &Db, row: KeyRow| {
            let work = async |mut tx: Tx| add_key(&mut tx, &row, 64).await;
            db.transact(work).await.expect("adds")
        };
        let db = db().await;
        add(&db, key("a", 1_000)).await;
        assert_eq!(version(&db).await, 1_000);
        // A clock that went back does not take the version back.
        add(&db, key("b", 10)).await;
        assert_eq!(version(&db).await, 1_001);
        // The same key again changes nothing.
        assert!(matches!(add(&db, key("a", 5_000)).await, Registered::Kept(row) if row.created_at.micros() == 1_000));
        assert_eq!(version(&db).await, 1_001);
        let anew = self::db().await;
        add(&anew, key("a", 2_000)).await;
        assert_ne!(version(&anew).await, 1_001);
    }
}
