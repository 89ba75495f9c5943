//! A reader for the XML that departments send: elements and text, nothing else.
//!
//! What XML can do beyond that is refused before anything is built from it: document types and entities, processing instructions,
//! depth, attribute and element floods, names in unknown namespaces' prefixes.

use std::borrow::Cow;

use quick_xml::NsReader;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::{Namespace, ResolveResult};

use crate::charset::Offsets;
use crate::connector::ReadFlaw;
use crate::template::is_xml_char;

/// Deepest nesting.
const DEPTH_MAX: usize = 64;
/// Most attributes of one element.
const ATTRIBUTES_MAX: usize = 64;
/// Most elements of one document.
const ELEMENTS_MAX: usize = 20_000;
/// Longest tag: the reader would look through a longer one before we can count its attributes.
const TAG_BYTES_MAX: usize = 16 * 1024;
/// Most namespace bindings in scope.
const BINDINGS_MAX: usize = 64;

/// An element.
#[derive(Debug)]
pub(super) struct Element<'t> {
    /// Local name.
    pub(super) name: &'t str,
    /// Namespace.
    pub(super) space: Space,
    /// Its own text, references resolved; with child elements only white space.
    pub(super) text: Cow<'t, str>,
    /// Child elements, in order.
    pub(super) children: Vec<Element<'t>>,
    /// Where its tag begins, in the department's bytes.
    pub(super) at: usize,
}

/// The namespaces that make a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// No namespace.
    None,
    /// That of the envelope.
    Envelope,
    /// The department's own.
    Target,
    /// Any other.
    Other,
}

/// The namespaces of the envelope and of the department.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spaces<'s> {
    pub(super) envelope: &'s str,
    pub(super) target: &'s str,
}

/// A document that is refused: where, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The element it is in, where there is one.
    pub(super) element: Option<String>,
    /// In the department's bytes.
    pub(super) at: usize,
    pub(super) flaw: ReadFlaw,
}

/// A document: its root, and the encoding that its declaration names.
#[derive(Debug)]
pub(super) struct Document<'t> {
    pub(super) root: Element<'t>,
    pub(super) encoding: Option<String>,
}

/// Reads a document.
pub(super) fn read<'t>(text: &'t str, mut offsets: Offsets<'t>, spaces: Spaces<'_>) -> Result<Document<'t>, Refused> {
    if let Some(at) = long_tag(text.as_bytes()) {
        return Err(Refused { element: None, at: offsets.of(at), flaw: ReadFlaw::Form("a tag longer than 16 KiB") });
    }
    let mut reader = NsReader::from_str(text);
    reader.config_mut().check_comments = true;
    reader.resolver_mut().set_max_namespace_bindings(BINDINGS_MAX);
    let mut build = Build { source: text, open: Vec::new(), root: None, encoding: None, count: 0, spaces };
    loop {
        let begins = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        let at = offsets.of(begins);
        let event = reader.read_resolved_event().map(|(space, event)| (build.space(&space), event));
        let (space, event) = event.map_err(|_| build.refuse(at, "not well-formed XML"))?;
        if matches!(event, Event::Eof) {
            return build.finish(at);
        }
        build.take(space, event, begins, at)?;
    }
}

/// Finds a tag that is too long. Comments, CDATA and declarations (`<!…`) may be: they have no attributes.
fn long_tag(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(open) = text.get(at..)?.iter().position(|b| *b == b'<') {
        let tag = at.saturating_add(open);
        let rest = text.get(tag..)?;
        let length = rest.iter().position(|b| *b == b'>').unwrap_or(rest.len());
        if length > TAG_BYTES_MAX && rest.get(1) != Some(&b'!') {
            return Some(tag);
        }
        at = tag.saturating_add(length.max(1));
    }
    None
}

/// What is built so far.
struct Build<'t, 's> {
    source: &'t str,
    open: Vec<Element<'t>>,
    root: Option<Element<'t>>,
    encoding: Option<String>,
    count: usize,
    spaces: Spaces<'s>,
}

impl<'t> Build<'t, '_> {
    fn space(&self, space: &ResolveResult<'_>) -> Result<Space, ()> {
        match space {
            ResolveResult::Unbound => Ok(Space::None),
            ResolveResult::Bound(Namespace(name)) if *name == self.spaces.envelope => Ok(Space::Envelope),
            ResolveResult::Bound(Namespace(name)) if *name == self.spaces.target => Ok(Space::Target),
            ResolveResult::Bound(_) => Ok(Space::Other),
            ResolveResult::Unknown(_) => Err(()),
        }
    }

    /// Takes what begins at `begins` in the text, which is `at` in the bytes.
    fn take(&mut self, space: Result<Space, ()>, event: Event<'t>, begins: usize, at: usize) -> Result<(), Refused> {
        match event {
            Event::Start(tag) => {
                let element = self.element(&tag, space, begins, at)?;
                self.open.push(element);
                Ok(())
            }
            Event::Empty(tag) => {
                let element = self.element(&tag, space, begins, at)?;
                self.close(element, at)
            }
            Event::End(_) => match self.open.pop() {
                Some(element) => self.close(element, at),
                None => Err(self.refuse(at, "not well-formed XML")),
            },
            Event::Text(text) => self.text(text.xml10_content(), at),
            Event::CData(text) => self.text(text.xml10_content(), at),
            Event::GeneralRef(reference) => {
                let c = character(&reference)
                    .ok_or_else(|| self.refuse(at, "an entity, or a reference to no character"))?;
                self.text(Cow::Owned(c.to_string()), at)
            }
            Event::Comment(_) => Ok(()),
            Event::Decl(declaration) => {
                if begins != 0 {
                    return Err(self.refuse(at, "an XML declaration that is not the first thing"));
                }
                let encoding = declaration.encoding().transpose();
                self.encoding = encoding.map_err(|_| self.refuse(at, "not well-formed XML"))?.map(Cow::into_owned);
                Ok(())
            }
            Event::DocType(_) => Err(self.refuse(at, "a DOCTYPE")),
            Event::PI(_) => Err(self.refuse(at, "a processing instruction")),
            Event::Eof => Ok(()),
        }
    }

    fn element(
        &mut self,
        tag: &BytesStart<'t>,
        space: Result<Space, ()>,
        begins: usize,
        at: usize,
    ) -> Result<Element<'t>, Refused> {
        self.count += 1;
        if self.count > ELEMENTS_MAX {
            return Err(self.refuse_with(at, ReadFlaw::TooMany(ELEMENTS_MAX)));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(self.refuse(at, "elements nested deeper than 64"));
        }
        for (position, attribute) in tag.attributes().with_checks(false).enumerate() {
            if position >= ATTRIBUTES_MAX {
                return Err(self.refuse(at, "more than 64 attributes"));
            }
            attribute.map_err(|_| self.refuse(at, "not well-formed XML"))?;
        }
        // Few enough now to compare each with each.
        if tag.attributes().any(|attribute| attribute.is_err()) {
            return Err(self.refuse(at, "an attribute that is there twice"));
        }
        let space = space.map_err(|()| self.refuse(at, "a prefix without a namespace"))?;
        // The name as a piece of the document, which outlives the reader's event.
        let start = begins + 1 + tag.name().prefix().map_or(0, |prefix| prefix.as_ref().len() + 1);
        let length = tag.local_name().as_ref().len();
        let name = self.source.get(start..start + length).unwrap_or_default();
        Ok(Element { name, space, text: Cow::Borrowed(""), children: Vec::new(), at })
    }

    fn close(&mut self, element: Element<'t>, at: usize) -> Result<(), Refused> {
        if !element.children.is_empty() && !element.text.trim_ascii().is_empty() {
            return Err(self.refuse(at, "text between elements"));
        }
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None if self.root.is_none() => self.root = Some(element),
            None => return Err(self.refuse(at, "a second root element")),
        }
        Ok(())
    }

    fn text(&mut self, text: Cow<'t, str>, at: usize) -> Result<(), Refused> {
        if !text.chars().all(is_xml_char) {
            return Err(self.refuse(at, "a character that XML does not allow"));
        }
        match self.open.last_mut() {
            Some(element) if element.text.is_empty() => element.text = text,
            Some(element) => element.text.to_mut().push_str(&text),
            None if text.trim_ascii().is_empty() => {}
            None => return Err(self.refuse(at, "text outside the root element")),
        }
        Ok(())
    }

    fn finish(mut self, at: usize) -> Result<Document<'t>, Refused> {
        match (self.open.is_empty(), self.root.take()) {
            (true, Some(root)) => Ok(Document { root, encoding: self.encoding }),
            _ => Err(self.refuse(at, "the document ends before its root element does")),
        }
    }

    fn refuse(&self, at: usize, why: &'static str) -> Refused {
        self.refuse_with(at, ReadFlaw::Form(why))
    }

    fn refuse_with(&self, at: usize, flaw: ReadFlaw) -> Refused {
        Refused { element: self.open.last().map(|element| element.name.to_owned()), at, flaw }
    }
}

/// The five entities that XML has without a document type, and characters by number.
fn character(reference: &BytesRef<'_>) -> Option<char> {
    if let Some(c) = reference.resolve_char_ref().ok()? {
        return is_xml_char(c).then_some(c);
    }
    match &**reference {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

impl<'t> Element<'t> {
    /// Its text without the white space around it.
    pub(super) fn value(&self) -> &str {
        self.text.trim_ascii()
    }

    /// The one child of that name in no namespace.
    pub(super) fn child(&self, name: &str) -> Result<&Element<'t>, (usize, ReadFlaw)> {
        let mut found = self.children.iter().filter(|child| child.name == name && child.space == Space::None);
        match (found.next(), found.next()) {
            (Some(child), None) => Ok(child),
            (Some(_), Some(second)) => Err((second.at, ReadFlaw::Twice)),
            (None, _) => Err((self.at, ReadFlaw::Missing)),
        }
    }
}
