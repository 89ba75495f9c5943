//! What is known of a variable before anything runs: so that a misspelt field is found when the profile is read, and not when a
//! comparison with nothing is quietly false.

use std::collections::BTreeMap;

/// What is known of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// A text, number or truth value, or none.
    Value,
    /// A group of fields.
    Record(Vec<(String, Known)>),
    /// A list of such.
    List(Box<Known>),
    /// Nothing.
    Anything,
}

/// The variables of an expression.
pub type Scope = BTreeMap<String, Known>;

impl Known {
    /// A group of plain values.
    pub fn values<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self::Record(names.into_iter().map(|name| (name.to_owned(), Self::Value)).collect())
    }

    /// What its elements are.
    #[must_use]
    pub fn element(&self) -> Self {
        match self {
            Self::List(element) => (**element).clone(),
            Self::Value | Self::Record(_) | Self::Anything => Self::Anything,
        }
    }

    /// Follows a path of fields. Errors say which field is not there, and which are.
    pub fn follow(&self, path: &[&str]) -> Result<&Self, String> {
        let Some((field, rest)) = path.split_first() else { return Ok(self) };
        match self {
            Self::Anything | Self::List(_) => Ok(&Self::Anything),
            Self::Value => Err(format!("`{field}` is asked of a value that has no fields")),
            Self::Record(fields) => match fields.iter().find(|(name, _)| name == field) {
                Some((_, known)) => known.follow(rest),
                None => {
                    let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
                    Err(format!("there is no field `{field}`; expected one of {}", names.join(", ")))
                }
            },
        }
    }
}

/// Checks that everything an expression needs is there.
pub fn check(needs: &[String], scope: &Scope) -> Result<(), String> {
    for need in needs {
        let path: Vec<&str> = need.split('.').collect();
        let Some((first, rest)) = path.split_first() else { continue };
        let Some(known) = scope.get(*first) else {
            let names: Vec<_> = scope.keys().map(String::as_str).collect();
            return Err(format!("there is no variable `{first}`; expected one of {}", names.join(", ")));
        };
        known.follow(rest).map_err(|what| format!("`{need}`: {what}"))?;
    }
    Ok(())
}

/// What a plain path such as `list.rows` or `details[index]` leads to, also behind `… if … else none`; anything for other
/// expressions.
pub fn of_path(expression: &str, scope: &Scope) -> Known {
    let path = match expression.split_once(" if ") {
        Some((path, condition)) if condition.trim_end().ends_with(" else none") => path,
        Some(_) => return Known::Anything,
        None => expression,
    };
    of_plain(path.trim(), scope).unwrap_or(Known::Anything)
}

fn of_plain(path: &str, scope: &Scope) -> Option<Known> {
    let mut known: Option<Known> = None;
    for part in path.split('.') {
        let (name, is_element) = match part.split_once('[') {
            Some((name, index)) => (name, index.ends_with(']') && !index.contains('[')),
            None => (part, false),
        };
        if name.is_empty()
            || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            || part.contains('[') != is_element
        {
            return None;
        }
        let next = match &known {
            None => scope.get(name)?,
            Some(known) => known.follow(&[name]).ok()?,
        };
        known = Some(if is_element { next.element() } else { next.clone() });
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_records_and_stops_at_what_is_not_known() {
        let reply = Known::Record(vec![
            ("total".into(), Known::Value),
            ("rows".into(), Known::List(Box::new(Known::values(["xh"])))),
        ]);
        let mut scope = Scope::new();
        scope.insert("list".into(), reply);
        let check = |need: &str| check(&[need.to_owned()], &scope);
        assert_eq!(check("list.total"), Ok(()));
        assert_eq!(check("list.rows.length"), Ok(()));
        assert!(check("list.totl").expect_err("misspelt").contains("expected one of total, rows"));
        assert!(check("lst").expect_err("misspelt").contains("expected one of list"));
        assert!(check("list.total.x").is_err());
        assert_eq!(of_path("list.rows", &scope).element(), Known::values(["xh"]));
        assert_eq!(of_path("list.rows[index] if list else none", &scope), Known::values(["xh"]));
        for other in ["[list.rows]", "list.rows if x else y", "list.rows[a[0]]", "list.rows | first", "none"] {
            assert_eq!(of_path(other, &scope), Known::Anything, "{other}");
        }
    }
}
