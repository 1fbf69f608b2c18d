//! Residual states, which stay where they are while layers read them and add to them.

/// The residual states of some tokens: rows of a matrix [slots, width] that holds those of others too.
pub(crate) struct States<'a> {
    data: &'a mut [f32],
    width: usize,
    /// Where the state of each token lies; no two are the same.
    slots: &'a [usize],
}

impl<'a> States<'a> {
    /// Names the rows `slots` of `data` [slots, width].
    pub(crate) fn new(data: &'a mut [f32], width: usize, slots: &'a [usize]) -> Self {
        States { data, width, slots }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The state of token `index`: [width]
    #[inline(always)]
    pub(crate) fn row(&self, index: usize) -> &[f32] {
        &self.data[self.slots[index] * self.width..][..self.width]
    }

    pub(crate) fn row_mut(&mut self, index: usize) -> &mut [f32] {
        &mut self.data[self.slots[index] * self.width..][..self.width]
    }

    /// The states one after the other: [tokens, width]
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        (0..self.len()).map(|index| self.row(index))
    }

    /// The whole matrix and the slots of the tokens.
    pub(crate) fn parts(&mut self) -> (&mut [f32], &'a [usize]) {
        (&mut *self.data, self.slots)
    }
}
