//! Which keys there are, read from the schema, and which of them was probably meant.

use serde_json::Value;

/// The schema of [`super::Config`] with a cursor's worth of helpers around it.
pub(super) struct Known(Value);

/// What the schema says of a place in the tree.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    root: &'a Value,
    node: &'a Value,
}

impl Known {
    pub(super) fn new() -> Self {
        Self(super::schema())
    }

    pub(super) fn root(&self) -> Node<'_> {
        Node { root: &self.0, node: &self.0 }
    }

    /// The place of a dotted key without list positions.
    pub(super) fn at(&self, path: &str) -> Option<Node<'_>> {
        path.split('.').try_fold(self.root(), |node, segment| node.child(segment))
    }

    /// Every dotted key that a variable can set: lists of tables stand in the file only.
    fn leaves(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (section, node) in self.root().children() {
            for (key, _) in node.children() {
                found.push(format!("{section}.{key}"));
            }
        }
        found
    }

    /// The key that was probably meant by `segment` below `parent` (a dotted path, or empty).
    pub(super) fn suggest(&self, parent: &str, node: Node<'_>, segment: &str) -> Option<String> {
        let near = |key: &str| {
            let distance = strsim::damerau_levenshtein(key, segment);
            (distance <= 1 + segment.len() / 4).then_some(distance)
        };
        let siblings = node.children();
        let sibling = siblings
            .iter()
            .filter_map(|(key, _)| Some((near(key)?, key)))
            .min_by_key(|(distance, _)| *distance);
        if let Some((_, key)) = sibling {
            return Some(if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") });
        }
        // The right word in the wrong section.
        self.leaves().into_iter().find(|path| path.rsplit('.').next() == Some(segment))
    }
}

impl<'a> Node<'a> {
    fn resolved(self) -> &'a Value {
        let mut node = self.node;
        // The depth of references is small; the bound only keeps a malformed schema from looping.
        for _ in 0..8 {
            if let Some(name) = node["$ref"].as_str().and_then(|text| text.strip_prefix("#/$defs/"))
            {
                node = &self.root["$defs"][name];
            } else if let Some(options) = node["anyOf"].as_array() {
                // An optional section: itself or null.
                let section = options.iter().find(|option| option["type"] != "null");
                node = section.unwrap_or(&Value::Null);
            } else {
                break;
            }
        }
        node
    }

    /// Its keys, when it is a table.
    pub(super) fn children(self) -> Vec<(String, Node<'a>)> {
        let Some(properties) = self.resolved()["properties"].as_object() else { return Vec::new() };
        let children = properties.iter();
        children.map(|(key, node)| (key.clone(), Node { root: self.root, node })).collect()
    }

    pub(super) fn child(self, key: &str) -> Option<Node<'a>> {
        let node = self.resolved()["properties"].get(key)?;
        Some(Node { root: self.root, node })
    }

    /// What a list holds; `None` when it is no list.
    pub(super) fn items(self) -> Option<Node<'a>> {
        let node = self.resolved().get("items")?;
        Some(Node { root: self.root, node })
    }

    pub(super) fn is_table(self) -> bool {
        self.resolved().get("properties").is_some()
    }

    /// Whether keys beyond the named ones are welcome.
    pub(super) fn is_open(self) -> bool {
        let more = self.resolved().get("additionalProperties");
        !self.is_table() || more.is_some_and(|more| *more != Value::Bool(false))
    }
}
