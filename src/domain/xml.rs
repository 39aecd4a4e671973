//! libvirt's XML: reading it, and changing it in place, so that whatever is not changed stays as it was, byte for byte. Pure
//! over text. A document type, and with it every entity of its own, is refused; elements and attributes of other namespaces
//! are other programs' own and not looked at.

#![forbid(unsafe_code)]

use std::ops::Range;

use roxmltree::{Attribute, Document, Node, ParsingOptions};

use crate::error::{Context, Error, ErrorKind, Result};

/// The most elements, texts and comments that a definition has: a large one has some thousands.
pub(super) const NODES: u32 = 200_000;

/// Reads a text of at most `nodes` elements, texts and comments.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when it is no such XML.
pub(super) fn document(text: &str, nodes: u32) -> Result<Document<'_>> {
    let options = ParsingOptions { nodes_limit: nodes, ..ParsingOptions::default() };
    Document::parse_with_options(text, options)
        .context_kind(ErrorKind::Unsupported, || "the domain's definition is no XML that can be read")
}

/// The domain that a document is the definition of.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when it is another document.
pub(super) fn domain<'a, 'i>(document: &'a Document<'i>) -> Result<Node<'a, 'i>> {
    let domain = document.root_element();
    if is(domain, "domain") { Ok(domain) } else { Err(malformed("it does not begin with <domain>")) }
}

/// Whether a node is an element of libvirt's own with this name.
pub(super) fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().namespace().is_none() && node.tag_name().name() == name
}

/// The children of this name.
pub(super) fn children<'a, 'i>(
    node: Node<'a, 'i>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> + use<'a, 'i> {
    node.children().filter(move |child| is(*child, name))
}

/// The only child of this name.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when there are several.
pub(super) fn child<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> Result<Option<Node<'a, 'i>>> {
    let mut found = children(node, name);
    match (found.next(), found.next()) {
        (first, None) => Ok(first),
        _ => Err(malformed(&format!("it has more than one <{name}>"))),
    }
}

/// The value of an attribute.
pub(super) fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    named(node, name).map(|attribute| attribute.value())
}

fn named<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Attribute<'a, 'i>> {
    node.attributes().find(|attribute| attribute.namespace().is_none() && attribute.name() == name)
}

/// What a definition is that makes no sense.
pub(super) fn malformed(what: &str) -> Error {
    Error::unsupported(format!("the domain's definition is not understood: {what}"))
}

/// Text for an element or for an attribute in single quotes.
///
/// # Errors
/// A usage error for characters that XML 1.0 has no way to write (2.2), or that would not come back as they are.
pub(super) fn escaped(text: &str) -> Result<String> {
    if let Some(bad) = text.chars().find(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')) {
        return Err(Error::usage(format!("{text:?} has the character {bad:?}, which libvirt cannot keep")));
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&apos;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    Ok(escaped)
}

/// Changes to a text, each of a range of its bytes.
#[derive(Debug)]
pub(super) struct Edits<'t> {
    text: &'t str,
    edits: Vec<(Range<usize>, String)>,
}

impl<'t> Edits<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, edits: Vec::new() }
    }

    /// Takes an element away, with the blanks before it.
    pub(super) fn remove(&mut self, node: Node<'_, '_>) {
        let range = node.range();
        self.edits.push((self.with_blanks(range), String::new()));
    }

    /// Puts other text in the place of an element.
    pub(super) fn replace(&mut self, node: Node<'_, '_>, with: String) {
        self.edits.push((node.range(), with));
    }

    /// Takes an attribute away, where there is one.
    pub(super) fn without(&mut self, node: Node<'_, '_>, name: &str) {
        if let Some(attribute) = named(node, name) {
            let range = self.with_blanks(attribute.range());
            self.edits.push((range, String::new()));
        }
    }

    /// Gives an attribute a value, which has nothing to be escaped.
    pub(super) fn set(&mut self, node: Node<'_, '_>, name: &str, value: &str) {
        match named(node, name) {
            Some(attribute) => self.edits.push((attribute.range(), format!("{name}='{value}'"))),
            None => {
                let at = node.range().start + 1 + node.tag_name().name().len();
                self.edits.push((at..at, format!(" {name}='{value}'")));
            }
        }
    }

    /// Adds an element before another, with the same blanks before it.
    pub(super) fn before(&mut self, node: Node<'_, '_>, element: &str) {
        let Range { start, .. } = node.range();
        let blanks = self.with_blanks(start..start);
        let with = format!("{}{element}", &self.text[blanks.clone()]);
        // Before the blanks, which may be taken away with the other.
        self.edits.push((blanks.start..blanks.start, with));
    }

    /// Adds an element as the first one in another.
    pub(super) fn first_in(&mut self, node: Node<'_, '_>, element: &str) {
        if let Some(first) = node.first_element_child() {
            return self.before(first, element);
        }
        let Range { start, end } = node.range();
        let text = &self.text[start..end];
        // Without content a tag ends in itself.
        if text.ends_with("/>") {
            let with = format!(">{element}</{}>", node.tag_name().name());
            return self.edits.push((end - 2..end, with));
        }
        let at = start + text.rfind("</").unwrap_or(text.len());
        self.edits.push((at..at, element.to_owned()));
    }

    fn with_blanks(&self, range: Range<usize>) -> Range<usize> {
        self.text[..range.start].trim_end_matches([' ', '\t', '\n', '\r']).len()..range.end
    }

    /// The changed text. What is within something else that was changed goes with it.
    pub(super) fn apply(mut self) -> String {
        // Of those that begin together, what is added comes before what is taken away, the longest first.
        self.edits.sort_by_key(|(range, _)| (range.start, !range.is_empty(), std::cmp::Reverse(range.end)));
        let (mut text, mut at) = (String::with_capacity(self.text.len()), 0);
        for (range, with) in self.edits {
            if range.start >= at {
                text.push_str(&self.text[at..range.start]);
                text.push_str(&with);
                at = range.end;
            }
        }
        text.push_str(&self.text[at..]);
        text
    }
}
