//! Who pays a mixed order and who is treated: personal, and kept only sealed until the channel has it.

use runtime::secret::Pii;
use serde::{Deserialize, Serialize};

/// What is personal in a mixed order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patient {
    /// Who pays and, unless another is named, is treated.
    pub payer: Person,
    /// The relative who is treated instead.
    pub relative: Option<Person>,
    /// The citizen's authorisation.
    pub pay_auth_no: Option<Pii<String>>,
    /// Where the citizen is: longitude and latitude.
    pub geo_location: Option<Pii<String>>,
}

/// Somebody who pays or is treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Name.
    pub name: Pii<String>,
    /// How the channel names the identity number; as personal as that.
    pub id_digest: Pii<String>,
    /// The kind of document, in the channel's words.
    pub card_type: String,
}

#[derive(Serialize, Deserialize)]
struct Text {
    reference: String,
    payer: PersonText,
    relative: Option<PersonText>,
    pay_auth_no: Option<String>,
    geo_location: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct PersonText {
    name: String,
    id_digest: String,
    card_type: String,
}

impl Patient {
    /// Writes it with the payer's reference at the channel, to be sealed as that is; None is a failure of the library.
    pub fn write(&self, reference: &Pii<String>) -> Option<Pii<String>> {
        let bare = |text: &Option<Pii<String>>| text.as_ref().map(|text| text.expose().clone());
        let text = Text {
            reference: reference.expose().clone(),
            payer: PersonText::of(&self.payer),
            relative: self.relative.as_ref().map(PersonText::of),
            pay_auth_no: bare(&self.pay_auth_no),
            geo_location: bare(&self.geo_location),
        };
        serde_json::to_string(&text).ok().map(Pii::new)
    }

    /// Reads what was written: the payer's reference, and the rest.
    pub fn read(text: &Pii<String>) -> Option<(Pii<String>, Self)> {
        let text: Text = serde_json::from_str(text.expose()).ok()?;
        let patient = Self {
            payer: text.payer.person(),
            relative: text.relative.map(PersonText::person),
            pay_auth_no: text.pay_auth_no.map(Pii::new),
            geo_location: text.geo_location.map(Pii::new),
        };
        Some((Pii::new(text.reference), patient))
    }
}

impl PersonText {
    fn of(person: &Person) -> Self {
        let (name, id_digest) = (person.name.expose().clone(), person.id_digest.expose().clone());
        Self { name, id_digest, card_type: person.card_type.clone() }
    }

    fn person(self) -> Person {
        Person { name: Pii::new(self.name), id_digest: Pii::new(self.id_digest), card_type: self.card_type }
    }
}
