/// Where each element stands in a sequence, for algorithms that treat 64 elements at a time.
///
/// It takes memory linear in the length; a mask for each distinct element would take quadratic memory.
pub(crate) struct Positions {
    /// The positions of all elements; those of element n are `positions[starts[n]..starts[n + 1]]`.
    positions: Vec<u32>,
    starts: Vec<u32>,
}

impl Positions {
    /// Finds the positions in a sequence whose elements are numbers below `vocabulary`.
    pub(crate) fn new(sequence: &[u32], vocabulary: usize) -> Self {
        let mut starts = vec![0; vocabulary + 1];
        for &element in sequence {
            starts[element as usize + 1] += 1;
        }
        for number in 0..vocabulary {
            starts[number + 1] += starts[number];
        }
        let (mut positions, mut next) = (vec![0; sequence.len()], starts.clone());
        for (position, &element) in sequence.iter().enumerate() {
            let next = &mut next[element as usize];
            positions[*next as usize] = position as u32;
            *next += 1;
        }
        Self { positions, starts }
    }

    /// Sets the bits of the positions that hold `element`.
    pub(crate) fn set(&self, element: u32, mask: &mut [u64]) {
        let bounds = self.starts.get(element as usize..).and_then(|starts| starts.first_chunk());
        let Some(&[start, end]) = bounds else { return };
        for position in &self.positions[start as usize..end as usize] {
            mask[*position as usize / 64] |= 1 << (position % 64);
        }
    }
}
