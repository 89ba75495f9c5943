//! The cache: one suite over memory and Redis, then what happens when Redis is slow, gone, full or late.

#[path = "../../../tests/src/servers.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of other crates, which use the rest")]
mod servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use runtime::Context;
use servers::Redis;
use store::cache::{Config, Count, Notice};
use store::{Cache, Db, Tx, outbox};
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);
/// The promise is 50 ms, which has a test of its own; the rest is for a test machine that is busy with other things.
const ANSWERED: Duration = Duration::from_millis(50 + 200);

async fn open(config: &Config) -> Cache {
    Cache::open(config, &Context::system()).await.expect("opens")
}

fn shared(server: &Redis) -> Config {
    Config { url: server.url().to_owned(), prefix: server.prefix(), ..Config::default() }
}

/// Waits until something holds; fails with its name when it does not come to hold within ten seconds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

mod suite {
    use super::*;

    pub(crate) async fn what_is_put_is_there_until_it_runs_out(cache: &Cache) {
        assert_eq!(cache.get("k").await, None);
        cache.put("k", b"\0\xffvalue", MINUTE).await;
        assert_eq!(cache.get("k").await.as_deref(), Some(&b"\0\xffvalue"[..]));
        cache.put("k", b"", Duration::from_millis(40)).await;
        assert_eq!(cache.get("k").await.as_deref(), Some(&b""[..]));
        until("it has run out", async || cache.get("k").await.is_none()).await;
        cache.put("k", b"again", MINUTE).await;
        cache.remove("k").await;
        assert_eq!(cache.get("k").await, None);
    }

    pub(crate) async fn a_nonce_is_kept_once_under_a_race(cache: &Cache) {
        let tries = (0..50).map(|_| cache.put_if_absent("nonce", b"", Duration::from_millis(200)));
        let kept = futures::future::join_all(tries).await.into_iter().filter(|kept| *kept).count();
        assert_eq!(kept, 1);
        until("its time is over", async || cache.put_if_absent("nonce", b"", MINUTE).await).await;
        assert!(!cache.put_if_absent("nonce", b"", MINUTE).await);
    }

    pub(crate) async fn counts_add_up_within_their_window(cache: &Cache) {
        let window = Duration::from_millis(300);
        let counts = futures::future::join_all((0..20).map(|_| cache.incr("quota", 2, window))).await;
        let mut values: Vec<_> = counts.iter().map(|count| count.value).collect();
        values.sort_unstable();
        assert_eq!(values, (1..=20).map(|n| n * 2).collect::<Vec<_>>());
        assert!(counts.iter().all(|count| count.shared));
        until("the window is over", async || cache.incr("quota", 1, window).await.value == 1).await;
    }

    pub(crate) async fn keys_of_any_length_and_values_up_to_a_limit(cache: &Cache) {
        let (one, other) = ("x".repeat(100_000), format!("{}y", "x".repeat(99_999)));
        cache.put(&one, b"1", MINUTE).await;
        assert_eq!((cache.get(&one).await.as_deref(), cache.get(&other).await), (Some(&b"1"[..]), None));
        let large = vec![7; store::cache::VALUE_BYTES_MAX];
        cache.put("large", &large, MINUTE).await;
        assert_eq!(cache.get("large").await.map(|value| value.len()), Some(large.len()));
        cache.put("large", &[&large[..], b"x"].concat(), MINUTE).await;
        assert_eq!(cache.get("large").await, None, "neither the new nor the old");
    }

    pub(crate) async fn subscribers_hear_their_channel_in_order_and_once(cache: &Cache) {
        let (mut one, mut two) = (cache.subscribe("news"), cache.subscribe("news"));
        let mut other = cache.subscribe("else");
        for index in 0..10_u8 {
            cache.publish("news", &[index]).await;
        }
        cache.publish("else", b"end").await;
        assert_eq!(messages(&mut other, 1).await, [b"end".to_vec()]);
        for subscriber in [&mut one, &mut two] {
            let heard = messages(subscriber, 10).await;
            assert_eq!(heard, (0..10).map(|index| vec![index]).collect::<Vec<_>>());
            // What comes back from Redis must not be heard a second time.
            let more = tokio::time::timeout(Duration::from_millis(150), messages(subscriber, 1)).await;
            assert!(more.is_err(), "heard twice: {more:?}");
        }
    }

    pub(crate) async fn a_slow_subscriber_is_told_that_it_missed_something(cache: &Cache) {
        let mut slow = cache.subscribe("news");
        for index in 0..400_u32 {
            cache.publish("news", &index.to_be_bytes()).await;
        }
        assert_eq!(slow.next().await, Notice::Gap);
    }

    pub(crate) async fn calls_are_counted(cache: &Cache) {
        let before = cache.calls();
        cache.put("a", b"", MINUTE).await;
        cache.get("a").await;
        cache.put_if_absent("a", b"", MINUTE).await;
        cache.incr("n", 1, MINUTE).await;
        cache.publish("c", b"").await;
        cache.remove("a").await;
        assert_eq!(cache.calls() - before, 6);
    }
}

async fn messages(subscriber: &mut store::cache::Subscription, wanted: usize) -> Vec<Vec<u8>> {
    let mut heard = Vec::new();
    while heard.len() < wanted {
        if let Notice::Message(message) = subscriber.next().await {
            heard.push(message);
        }
    }
    heard
}

macro_rules! conformance {
    ($($case:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $case() {
                super::suite::$case(&super::open(&super::Config::default()).await).await;
            })+
        }

        mod redis {
            $(#[tokio::test]
            async fn $case() {
                let server = super::Redis::start();
                let cache = super::open(&super::shared(&server)).await;
                assert!(!cache.degraded());
                super::suite::$case(&cache).await;
                assert!(!cache.degraded());
            })+
        }
    };
}

conformance!(
    what_is_put_is_there_until_it_runs_out,
    a_nonce_is_kept_once_under_a_race,
    counts_add_up_within_their_window,
    keys_of_any_length_and_values_up_to_a_limit,
    subscribers_hear_their_channel_in_order_and_once,
    a_slow_subscriber_is_told_that_it_missed_something,
    calls_are_counted,
);

#[tokio::test]
async fn two_processes_share_what_has_one_prefix() {
    let server = Redis::start();
    let config = shared(&server);
    let (one, two) = (open(&config).await, open(&config).await);
    let stranger = open(&shared(&server)).await;
    one.put("k", b"v", MINUTE).await;
    assert_eq!((two.get("k").await.as_deref(), stranger.get("k").await), (Some(&b"v"[..]), None));
    assert!(one.put_if_absent("nonce", b"", MINUTE).await);
    assert!(!two.put_if_absent("nonce", b"", MINUTE).await);
    assert!(stranger.put_if_absent("nonce", b"", MINUTE).await);
    // A refusal holds as long as the one who was first said, not as long as the one who was refused asked for.
    assert!(one.put_if_absent("brief", b"", Duration::from_millis(150)).await);
    assert!(!two.put_if_absent("brief", b"", MINUTE).await);
    until("the first one's time is over", async || two.put_if_absent("brief", b"", MINUTE).await).await;
    one.incr("quota", 3, MINUTE).await;
    assert_eq!(two.incr("quota", 1, MINUTE).await, Count { value: 4, shared: true });
    let (mut hears, mut apart) = (two.subscribe("news"), stranger.subscribe("news"));
    // Until the other process listens its first messages are lost, which is what hints may be.
    let heard = async { messages(&mut hears, 1).await };
    let publishing = async {
        loop {
            one.publish("news", b"x").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        heard = heard => assert_eq!(heard, [b"x".to_vec()]),
        () = publishing => {}
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), messages(&mut apart, 1)).await.is_err());
}

#[tokio::test]
async fn one_process_wakes_the_readers_of_another() {
    let server = Redis::start();
    let config = shared(&server);
    let (one, two) = (open(&config).await, open(&config).await);
    let (writer, reader) = (Db::simulated().expect("opens"), Db::simulated().expect("opens"));
    writer.migrate(&[]).await.expect("migrates");
    one.bridge(&writer, "payments.outbox");
    two.bridge(&reader, "payments.outbox");
    let mut waiter = reader.wake().waiter();
    until("a commit over there wakes a reader here", async || {
        writer.transact(async |mut tx: Tx| outbox::append(&mut tx, "s", "k", b"").await).await.expect("appends");
        waiter.wait(reader.clock(), Duration::from_millis(200)).await
    })
    .await;
}

#[tokio::test]
async fn a_hanging_redis_costs_one_call_its_deadline_and_the_next_nothing() {
    let server = Redis::private();
    let cache = open(&shared(&server)).await;
    cache.put("k", b"v", MINUTE).await;
    assert!(cache.put_if_absent("nonce", b"", MINUTE).await);
    assert_eq!(cache.incr("quota", 5, MINUTE).await, Count { value: 5, shared: true });
    server.pause();
    let start = Instant::now();
    assert_eq!(cache.get("k").await.as_deref(), Some(&b"v"[..]), "what this process put, it still has");
    assert!(start.elapsed() < ANSWERED, "waited {:?}", start.elapsed());
    assert!(cache.degraded());
    let start = Instant::now();
    for index in 0..1_000 {
        cache.put(&format!("k{index}"), b"v", MINUTE).await;
    }
    assert!(!cache.put_if_absent("nonce", b"", MINUTE).await, "a nonce that this process saw stays used");
    assert_eq!(cache.incr("quota", 1, MINUTE).await, Count { value: 6, shared: false });
    assert!(start.elapsed() < ANSWERED, "1,002 calls took {:?}", start.elapsed());
    server.resume();
    until("Redis is back", async || !cache.degraded()).await;
    cache.put("after", b"v", MINUTE).await;
    assert!(!cache.degraded());
}

/// What is promised, without the rest: of some tries one is not disturbed by what else the machine does.
#[tokio::test]
async fn a_hanging_redis_is_given_up_within_fifty_milliseconds() {
    const PROMISED: Duration = Duration::from_millis(50);
    /// A timer is due with the millisecond after.
    const TIMER: Duration = Duration::from_millis(3);
    let server = Redis::private();
    let cache = open(&shared(&server)).await;
    let mut shortest = Duration::MAX;
    for _ in 0..20 {
        server.pause();
        let start = Instant::now();
        assert!(!cache.incr("quota", 1, MINUTE).await.shared);
        shortest = shortest.min(start.elapsed());
        server.resume();
        until("Redis is back", async || !cache.degraded()).await;
        if shortest <= PROMISED + TIMER {
            return;
        }
    }
    panic!("at best after {shortest:?}");
}

#[tokio::test]
async fn many_calls_at_the_moment_of_the_hang_all_end_in_time() {
    let server = Redis::private();
    let cache = open(&shared(&server)).await;
    server.pause();
    let start = Instant::now();
    let calls = (0..200).map(|index| cache.incr(if index % 2 == 0 { "even" } else { "odd" }, 1, MINUTE));
    let counts = futures::future::join_all(calls).await;
    assert!(start.elapsed() < ANSWERED * 2, "waited {:?}", start.elapsed());
    assert!(counts.iter().all(|count| !count.shared));
    server.resume();
}

#[tokio::test]
async fn a_killed_redis_is_found_again_when_it_is_back() {
    let server = Redis::private();
    let cache = open(&shared(&server)).await;
    let mut subscriber = cache.subscribe("news");
    cache.put("k", b"v", MINUTE).await;
    server.kill();
    for index in 0..100 {
        let start = Instant::now();
        cache.put("k", format!("{index}").as_bytes(), MINUTE).await;
        assert_eq!(cache.get("k").await, Some(format!("{index}").into_bytes()));
        assert!(start.elapsed() < ANSWERED * 2);
    }
    assert!(cache.degraded());
    cache.publish("news", b"here").await;
    assert_eq!(messages(&mut subscriber, 1).await, [b"here".to_vec()], "this process still hears itself");
    server.restart();
    until("Redis is back", async || !cache.degraded()).await;
    assert_eq!(cache.get("k").await, None, "Redis came back empty, and it decides again");
    until("the subscriber learns that it may have missed something", async || subscriber.next().await == Notice::Gap)
        .await;
}

#[tokio::test]
async fn it_starts_without_redis_and_finds_it_later() {
    let server = Redis::private();
    server.kill();
    let start = Instant::now();
    let context = Context::system();
    let cache = Cache::open(&shared(&server), &context).await.expect("opens");
    assert!(start.elapsed() < Duration::from_secs(1), "opening took {:?}", start.elapsed());
    assert!(cache.degraded());
    let shown = |away| context.metrics.encode().contains(&format!("lastmile_store_cache_degraded_count{{}} {away}\n"));
    assert!(shown(1));
    assert_eq!(cache.incr("quota", 1, MINUTE).await, Count { value: 1, shared: false });
    server.restart();
    until("Redis is found", async || !cache.degraded()).await;
    assert!(cache.incr("quota", 1, MINUTE).await.shared);
    assert!(shown(0));
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_counts_as_away() {
    let server = Redis::private();
    let cache = open(&shared(&server)).await;
    let client = ::redis::Client::open(server.url()).expect("an address");
    let mut admin = client.get_multiplexed_async_connection().await.expect("connects");
    let mut set = async |value: &str| {
        ::redis::cmd("CONFIG")
            .arg("SET")
            .arg("maxmemory")
            .arg(value)
            .query_async::<()>(&mut admin)
            .await
            .expect("sets");
    };
    set("1").await;
    cache.put("k", b"v", MINUTE).await;
    assert!(cache.degraded(), "out of memory");
    assert_eq!(cache.get("k").await.as_deref(), Some(&b"v"[..]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(cache.degraded(), "it answers a PING, but that is not enough");
    set("0").await;
    until("it has room again", async || !cache.degraded()).await;
}

#[tokio::test]
async fn coming_back_is_tried_a_few_times_a_second_at_most() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("redis://{}/", listener.local_addr().expect("bound"));
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let refusing = async move {
        loop {
            let (socket, _) = listener.accept().await.expect("accepts");
            counted.fetch_add(1, Ordering::SeqCst);
            drop(socket);
        }
    };
    let trying = async {
        let cache = open(&Config { url, ..Config::default() }).await;
        let (start, before) = (Instant::now(), tries.load(Ordering::SeqCst));
        while start.elapsed() < Duration::from_secs(3) {
            cache.put("k", b"v", MINUTE).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(cache.degraded());
        tries.load(Ordering::SeqCst) - before
    };
    tokio::select! {
        // Two connections each: one for calls, one that listens.
        tries = trying => assert!((2..=3 * 2 * 4).contains(&tries), "{tries} connections in 3 s"),
        () = refusing => {}
    }
}

#[tokio::test]
async fn a_wrong_address_is_told_before_anything_starts() {
    for url in ["redis://", "http://localhost", "redis://user@:::"] {
        let refused = Cache::open(&Config { url: url.to_owned(), ..Config::default() }, &Context::system()).await;
        assert!(refused.is_err(), "{url}");
    }
    let mut problems = Vec::new();
    let config = Config { url: "http://x".to_owned(), prefix: String::new(), entries_max: 0, ..Config::default() };
    config.validate("cache", &mut problems);
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["cache.url", "cache.prefix", "cache.entries_max"]);
}
