use super::*;
use crate::kind::Zone;

fn types() -> Arc<Types> {
    let kinds = serde_yaml_ng::from_str(
        "{yuan: {kind: money, unit: yuan}, plate_type: {kind: code, table: {'02': SMALL}}, name: {kind: text, chars_max: 4}}",
    )
    .expect("types");
    Arc::new(Types::new(kinds, Zone::parse("+08:00").expect("a zone")))
}

fn render(source: &str, vars: &Vars) -> Result<String, Failed> {
    let mut templates = Templates::new(types());
    templates.add("body.xml", source).expect("compiles");
    templates.render("body.xml", vars).map_err(|unrendered| unrendered.failed)
}

#[test]
fn values_are_written_by_their_type_and_escaped() {
    let vars = Vars::default().with("fine", 20_005).with("type", "SMALL").with("name", "<&\"'>");
    let source = r#"<a>{{ fine | legacy("yuan") }}</a><b>{{ type | legacy("plate_type") }}</b><c>{{ name }}</c>"#;
    let written = render(source, &vars).expect("renders");
    assert_eq!(written, "<a>200.05</a><b>02</b><c>&lt;&amp;&quot;&apos;&gt;</c>");
}

#[test]
fn what_is_missing_or_does_not_fit_names_its_line() {
    let vars = Vars::default().with("name", "赵钱孙李周").with("none", ()).with("yes", true).with("bell", "\u{7}");
    let cases = [
        ("<a>\n{{ nothing }}</a>", 2, Why::Undefined),
        ("<a>{{ name.x }}</a>", 1, Why::Undefined),
        ("<a>{{ name | legacy('name') }}</a>", 1, Why::Misfit(Misfit::Length { min: 0, max: 4 })),
        ("<a>{{ none | legacy('name') }}</a>", 1, Why::Misfit(Misfit::Blank)),
        ("<a>{{ none }}</a>", 1, Why::Unwritable("none")),
        ("<a>{{ yes }}</a>", 1, Why::Unwritable("a truth value")),
        ("<a>{{ 1.5 }}</a>", 1, Why::Unwritable("a fraction")),
        ("<a>{{ [1] }}</a>", 1, Why::Unwritable("a list, map or other value")),
        ("<a>{{ bell }}</a>", 1, Why::Unwritable("a control character")),
    ];
    for (source, line, why) in cases {
        assert_eq!(render(source, &vars), Err(Failed { place: Place::Line(line), why }), "{source}");
    }
    assert_eq!(render("{{ none | legacy('name?') }}", &vars).as_deref(), Ok(""));
    assert!(matches!(render("{{ name | legacy('nme') }}", &vars), Err(Failed { why: Why::Other(_), .. })));
}

#[test]
fn bombs_end() {
    let vars = Vars::default().with("big", "x".repeat(64 * 1024));
    let fuel = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    assert_eq!(render(fuel, &vars).map_err(|failed| failed.why), Err(Why::Fuel));
    let long = "{% for a in range(1000) %}{{ big }}{% endfor %}";
    assert_eq!(render(long, &vars).map_err(|failed| failed.why), Err(Why::TooLong));
    assert!(render("{{ 'x' * 2000000000 }}", &vars).is_err());
    let doubling = "{% set n = namespace(s='x') %}{% for a in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}";
    assert!(render(doubling, &vars).is_err());
}

#[test]
fn a_scope_is_one_run_and_names_its_fields() {
    let mut templates = Templates::new(types());
    let fields = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(field, source)| ((*field).to_owned(), (*source).to_owned())).collect()
    };
    let scope = templates
        .add_scope(
            "s",
            &[],
            &fields(&[("sum", "a + b"), ("kind", "'x'\n if a > 1 else\n none"), ("text", "a | string")]),
        )
        .expect("compiles");
    let vars = Vars::default().with("a", 2).with("b", 40);
    let values = templates.eval(&scope, &vars).expect("evaluates");
    assert_eq!(values, [Value::from(42), Value::from("x"), Value::from("2")]);
    let failed = templates.eval(&scope, &Vars::default().with("a", 2)).expect_err("b is missing");
    assert_eq!(failed.place, Place::Field("sum".into()));

    let undefined = templates.add_scope("u", &[], &fields(&[("x", "a"), ("y", "a.missing")])).expect("compiles");
    let vars = Vars::default().with("a", Value::from(BTreeMap::<String, Value>::new()));
    let failed = templates.eval(&undefined, &vars).expect_err("undefined");
    assert_eq!(failed, Failed { place: Place::Field("y".into()), why: Why::Undefined });

    let (position, bad) =
        templates.add_scope("b", &[], &fields(&[("x", "a"), ("y", "a +")])).expect_err("no expression");
    assert_eq!(position, 1);
    assert!(bad.what.contains("syntax"), "{bad}");
    assert!(templates.add_scope("i", &[], &fields(&[("x", "1) %}{% set y = (2")])).is_err(), "no way out of the line");
}
