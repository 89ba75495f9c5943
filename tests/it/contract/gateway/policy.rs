//! Who may ask what, where.

use anyhow::{Context as _, ensure};
use contracts::catalog::v1::{ListItemsRequest, ListItemsResponse};
use contracts::department::v1::{ListBillsRequest, QueryRequest};
use lastmile_tests::catalogue::Catalogue;
use lastmile_tests::cluster::{on_both, on_both_with};
use lastmile_tests::golden::refused;
use lastmile_tests::super_app::{ITEM, SuperApp, with_token};
use prost::Message;
use rpc::oauth::Person;
use runtime::Context;

use super::rig::{CHANGSHA, Door, QUERY, TAIYUAN, bearer, framed};

#[test]
fn a_level_a_place_and_a_depth_are_needed() {
    on_both(async |cluster| {
        let door = Door::of(cluster, 730).await?;
        let good = door.asks(CHANGSHA.0)?;
        door.lie_in_wait().await?;
        let person = Person { level: 1, ..door.citizen.person("wechat") };
        let by_phone = bearer(&door.app.person_token(&person, &[CHANGSHA.1]).await?);
        let low = door.send(QUERY, &[("authorization", &by_phone)], framed(&good.encode_to_vec())).await?;
        refused(low, "gateway LEVEL_TOO_LOW", &[("levelMin", "ASSURANCE_LEVEL_NAME_ID")])?;

        for (item, region, reason) in [
            ("traffic.nothing", "430100", "catalog ITEM_NOT_LISTED"),
            // Guangzhou lists it for other entry points, Hunan for nobody.
            (ITEM, "440100", "catalog ITEM_NOT_LISTED"),
            (ITEM, "430000", "catalog ITEM_NOT_LISTED"),
            (ITEM, "999999", "catalog REGION_UNKNOWN"),
            (ITEM, "4301", "catalog REGION_UNKNOWN"),
        ] {
            let (item, region) = (item.to_owned(), region.to_owned());
            let asked = QueryRequest { item, region, ..good.clone() };
            refused(door.query(&asked).await?, reason, &[]).with_context(|| format!("{asked:?}"))?;
        }
        let taiyuan = QueryRequest { region: TAIYUAN.0.to_owned(), ..good.clone() };
        refused(door.query(&taiyuan).await?, "gateway AUDIENCE_MISSING", &[("profile", TAIYUAN.1)])?;
        // The articles give Taiyuan the query over Alipay, and no payment.
        let alipay = SuperApp::new(&Context::system(), &cluster.public(), "alipay", &cluster.client_keys())?;
        let token = alipay.citizen_token(&door.citizen, &[TAIYUAN.1]).await?;
        let (item, region) = (ITEM.to_owned(), TAIYUAN.0.to_owned());
        let bills = with_token(ListBillsRequest { item, region, ..ListBillsRequest::default() }, &token)?;
        let refusal = alipay.department().list_bills(bills).await;
        refused(refusal, "catalog DEPTH_NOT_OFFERED", &[("depth", "DEPTH_QUERY")])?;
        door.nobody_came(cluster, 0).await
    });
}

#[test]
fn a_consent_that_the_catalogue_asks_for_is_needed() {
    let to = "quota_per_minute: 0, consents: [traffic.report]";
    let catalogue = Catalogue::with("adapters.yaml", "quota_per_minute: 0", to).expect("a catalogue");
    let data_dir = catalogue.data_dir();
    let configure = move |config: &mut lastmile::Config| config.catalog.data_dir.clone_from(&data_dir);
    on_both_with(configure, async |cluster| {
        let door = Door::of(cluster, 734).await?;
        let asked = door.asks(CHANGSHA.0)?;
        refused(door.query(&asked).await?, "gateway CONSENT_MISSING", &[("purpose", "traffic.report")])?;
        ensure!(cluster.exchanges() == 0, "the department was called");
        let consents = vec![ITEM.to_owned(), "traffic.report".to_owned()];
        let person = Person { consents, ..door.citizen.person("wechat") };
        let agreed = bearer(&door.app.person_token(&person, &[CHANGSHA.1]).await?);
        let answer = door.send(QUERY, &[("authorization", &agreed)], framed(&asked.encode_to_vec())).await?;
        ensure!(answer.is_ok() && cluster.exchanges() > 0, "{answer:?}");
        Ok(())
    });
}

#[test]
fn an_envelope_is_read_to_its_end() {
    on_both(async |cluster| {
        let door = Door::of(cluster, 731).await?;
        let credential = bearer(&door.token);
        let good = door.asks(CHANGSHA.0)?.encode_to_vec();
        door.lie_in_wait().await?;
        let with = |more: &[u8]| framed(&[good.as_slice(), more].concat());
        let upper = QueryRequest { item: "Traffic.Violation".to_owned(), ..door.asks(CHANGSHA.0)? };
        let compressed = [&[1], &framed(&good)[1..]].concat();
        for (what, body, check) in [
            ("nothing", Vec::new(), "frame cut short"),
            ("half a message", framed(&good)[..20].to_vec(), "frame cut short"),
            ("two messages", [framed(&good), framed(&good)].concat(), "more than one message"),
            ("a compressed one", compressed, "compressed message"),
            // The later one would win in the adapter's decoder.
            ("two regions", with(b"\x12\x06140100"), "field repeated"),
            ("two items", with(b"\x0a\x01x"), "field repeated"),
            ("a region that is a number", with(b"\x10\x01"), "wrong wire type"),
            ("no region", framed(b"\x0a\x11traffic.violation"), "item or region missing"),
            ("bytes", with(&[0x1a, 0x7f]), "not protobuf"),
            ("capitals", framed(&upper.encode_to_vec()), "item or region malformed"),
        ] {
            let answer = door.send(QUERY, &[("authorization", &credential)], body).await?;
            refused(answer, "gateway ENVELOPE_INVALID", &[("check", check)]).with_context(|| what.to_owned())?;
        }
        door.nobody_came(cluster, 0).await
    });
}

#[test]
fn what_is_for_the_mesh_is_not_at_the_public_port() {
    on_both(async |cluster| {
        let door = Door::of(cluster, 732).await?;
        let clerk = SuperApp::new(&Context::system(), &cluster.public(), "clerk-1", &cluster.client_keys())?;
        let (citizen, own, clerk) =
            (bearer(&door.token), bearer(&door.app.own_token().await?), bearer(&clerk.own_token().await?));
        let query = framed(&door.asks(CHANGSHA.0)?.encode_to_vec());
        door.lie_in_wait().await?;
        for path in [
            "/lastmile.payments.v1.PaymentService/CreateOrder",
            "/lastmile.department.v1.DepartmentService/SettleBill",
            "/lastmile.department.v1.DepartmentService/LockBill",
            "/lastmile.department.v1.DepartmentService/Describe",
            "/lastmile.identity.v1.IdentityService/ListKeys",
            "/lastmile.identity.v1.IdentityService/RegisterKey",
            "/lastmile.catalog.v1.CatalogService/WatchCatalog",
            "/lastmile.cases.v1.CaseService/Nothing",
            "/nothing",
        ] {
            for credential in [&citizen, &own, &clerk] {
                let answer = door.send(path, &[("authorization", credential)], query.clone()).await?;
                refused(answer, "gateway METHOD_UNKNOWN", &[]).with_context(|| path.to_owned())?;
            }
        }
        let slots = "/lastmile.department.v1.DepartmentService/ListSlots";
        refused(door.send(slots, &[("authorization", &citizen)], query.clone()).await?, "common NOT_SERVED", &[])?;
        for (path, credential, caller) in [
            (QUERY, &own, "entry_point"),
            (QUERY, &clerk, "staff"),
            ("/lastmile.cases.v1.CaseService/OpenCase", &own, "entry_point"),
            ("/lastmile.cases.v1.CaseService/ListTasks", &citizen, "citizen"),
            ("/lastmile.cases.v1.CaseService/ResolveTask", &own, "entry_point"),
        ] {
            let answer = door.send(path, &[("authorization", credential)], query.clone()).await?;
            refused(answer, "common CALLER_NOT_ALLOWED", &[("caller", caller)]).with_context(|| path.to_owned())?;
        }
        door.nobody_came(cluster, 0).await
    });
}

/// What roles tell each other in headers is not believed of a stranger.
#[test]
fn headers_of_the_mesh_mean_nothing_at_the_door() {
    on_both(async |cluster| {
        let door = Door::of(cluster, 733).await?;
        let own = door.app.own_token().await?;
        let mut asked = with_token(ListItemsRequest { region: "140100".into(), ..ListItemsRequest::default() }, &own)?;
        asked.metadata_mut().insert("lastmile-entry-point", "alipay".parse()?);
        let ListItemsResponse { items, .. } = door.app.catalog().list_items(asked).await?.into_inner();
        ensure!(!items.is_empty() && items.iter().all(|item| item.entry_point == "wechat"), "{items:?}");

        // A query for Changsha that claims, in the headers of the mesh, to be for Taiyuan's adapter and somebody else.
        let (credential, mesh_key) = (bearer(&door.token), rpc::MESH_KEY);
        let headers = [
            ("authorization", credential.as_str()),
            (mesh_key.as_str(), "adapter/traffic/140100"),
            (rpc::token::ASSERTION_HEADER, "a.b.c"),
            (rpc::token::SEALED_HEADER, "a.b.c.d.e"),
        ];
        let body = framed(&door.asks(CHANGSHA.0)?.encode_to_vec());
        let answer = door.send(QUERY, &headers, body.clone()).await?;
        ensure!(answer.is_ok(), "they are not passed on: {answer:?}");
        let without = door.send(QUERY, &headers[1..], body).await?;
        refused(without, "common UNAUTHENTICATED", &[("check", "missing")])?;
        Ok(())
    });
}
