//! One thing, or several: most messages have one recipient, and a million of them should not cost a million heap blocks.

/// At least zero things; one of them costs no heap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Few<T> {
    /// Exactly one.
    One(T),
    /// Any other number.
    Many(Vec<T>),
}

impl<T> Few<T> {
    /// The things in order.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    /// The things in order, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            Self::One(one) => std::slice::from_mut(one),
            Self::Many(many) => many,
        }
    }

    /// Adds one at the end.
    pub fn push(&mut self, next: T) {
        let many = match std::mem::replace(self, Self::Many(Vec::new())) {
            Self::One(one) => vec![one, next],
            Self::Many(many) if many.is_empty() => {
                *self = Self::One(next);
                return;
            }
            Self::Many(mut many) => {
                many.push(next);
                many
            }
        };
        *self = Self::Many(many);
    }

    /// Keeps those that a test passes.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        match self {
            Self::One(one) => {
                if !keep(one) {
                    *self = Self::Many(Vec::new());
                }
            }
            Self::Many(many) => many.retain(keep),
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut few = Self::default();
        items.into_iter().for_each(|item| few.push(item));
        few
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_none_one_and_many() {
        let mut few: Few<u32> = Few::default();
        assert!(few.as_slice().is_empty());
        few.push(1);
        assert_eq!(few, Few::One(1));
        few.push(2);
        few.push(3);
        assert_eq!(few.as_slice(), [1, 2, 3]);
        few.retain(|&number| number != 2);
        assert_eq!(few.as_slice(), [1, 3]);
    }
}
