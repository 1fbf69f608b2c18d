//! Products of whole matrices of 8-bit numbers by the tiles of Intel's AMX, which multiply sixteen times as
//! many numbers a cycle as vectors do.
//!
//! A tile is a register of 16 rows of 64 bytes. One instruction adds the product of a tile of inputs, 16 rows
//! of 64, and a tile of weights, 16 outputs of 64 inputs, to a tile of 16 by 16 sums. The weights lie in
//! panels as these tiles want them: four inputs of an output one beside the other. Sums of integers are
//! exact, so that rows give the same here and in vectors.

/// Number of inputs of a tile, of which rows of inputs have to be multiples.
pub(crate) const DEPTH: usize = 64;

/// Number of rows from which on tiles take less time than vectors.
pub(crate) const FEWEST_ROWS: usize = 8;

/// Rows of inputs, each of which begins at `start` of its `stride` numbers.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [i8],
    pub(crate) stride: usize,
    pub(crate) start: usize,
}

/// Number of inputs of a block, which have sums of their own.
pub(crate) const BLOCK: usize = 32;

/// Number of rows of a tile.
pub(crate) const ROWS: usize = 16;

/// The weights of a block of a panel, four inputs of an output one beside the other: [half, inputs / 4, 16,
/// 4]
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct BlockWeights(pub(crate) [i8; PANEL * BLOCK]);

/// Sums of a block for some rows with either half of a panel, of the high and of the low halves of the
/// inputs: [high or low, half, rows, 16]
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct BlockSums(pub(crate) [[[[i32; LANES]; ROWS]; 2]; 2]);

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(crate) use self::absent::{BlockTiles, is_there, product};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use self::present::{BlockTiles, is_there, product};
use super::LANES;
use crate::panels::PANEL;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod absent {
    use super::{BlockSums, BlockWeights, Rows};
    use crate::panels::PANEL;

    /// Tiles that there are none of.
    pub(crate) struct BlockTiles;

    impl BlockTiles {
        pub(crate) fn new(_rows: usize) -> Self {
            unreachable!("the processor has no tiles")
        }

        /// # Safety
        /// Nobody has such tiles.
        pub(crate) unsafe fn multiply(
            &self,
            _: &BlockWeights,
            _: [*const i8; 2],
            _: usize,
            _: &mut BlockSums,
        ) {
        }
    }

    pub(crate) fn is_there() -> bool {
        false
    }

    pub(crate) fn product(_: &[i8], _: usize, _: Rows<'_>, _: impl FnMut(usize, usize, &[i32; PANEL])) {
        unreachable!("the processor has no tiles")
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod present {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    use std::sync::OnceLock;

    use super::{BLOCK, BlockSums, BlockWeights, DEPTH, ROWS, Rows};
    use crate::panels::PANEL;

    /// Whether the processor has tiles and the system lets this process use them.
    pub(crate) fn is_there() -> bool {
        static IS_THERE: OnceLock<bool> = OnceLock::new();
        *IS_THERE.get_or_init(|| {
            // Leaf 7: AMX-TILE and AMX-INT8.
            const BITS: u32 = 1 << 24 | 1 << 25;
            // SAFETY: every x86-64 processor has `cpuid`.
            #[allow(unused_unsafe, reason = "newer compilers know that it is safe")]
            let features = unsafe { if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).edx } else { 0 } };
            features & BITS == BITS && ask_for_tiles()
        })
    }

    /// Asks the kernel for the tiles of this process, without which the first use of one is an error.
    fn ask_for_tiles() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: the call changes nothing but what this process may do. A kernel that does not know it
        // returns an error.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }

    /// What `ldtilecfg` reads: for each tile its rows and their bytes.
    #[repr(C, align(64))]
    struct Config {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// The tiles of a thread, as long as this lives.
    struct Tiles;

    impl Tiles {
        /// Gives tiles 0 to 7 so many rows of so many bytes. The caller has asked whether there are tiles.
        fn load(rows: [u8; 8], bytes: [u16; 8]) -> Tiles {
            let mut config =
                Config { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
            config.bytes[..8].copy_from_slice(&bytes);
            config.rows[..8].copy_from_slice(&rows);
            // SAFETY: the caller has asked whether there are tiles.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, preserves_flags, readonly)) };
            Tiles
        }

        /// Makes tiles 0 to 3 hold sums (of the first rows with the two halves of a panel, then of the second
        /// rows), 4 and 5 the inputs of the first and the second rows, and 6 and 7 the halves of the weights.
        fn configure(rows: [usize; 2]) -> Tiles {
            let [first, second] = rows.map(|rows| rows as u8);
            Self::load([first, first, second, second, first, second, 16, 16], [DEPTH as u16; 8])
        }
    }

    impl Drop for Tiles {
        fn drop(&mut self) {
            // SAFETY: there are tiles, and nobody uses them now. Without this the system would save them
            // whenever it takes the processor from the thread.
            unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
        }
    }

    /// The tiles of a thread for blocks of inputs: 0 to 3 hold sums, 4 and 5 the high and the low halves of
    /// inputs, 6 and 7 the halves of the weights.
    pub(crate) struct BlockTiles(Tiles);

    impl BlockTiles {
        /// Configures tiles for up to 16 rows. The caller has asked whether there are tiles.
        pub(crate) fn new(rows: usize) -> Self {
            let rows = rows.clamp(1, ROWS) as u8;
            let inputs = BLOCK as u16;
            BlockTiles(Tiles::load(
                [rows, rows, rows, rows, rows, rows, 8, 8],
                [64, 64, 64, 64, inputs, inputs, 64, 64],
            ))
        }

        /// Computes the sums of one block.
        ///
        /// # Safety
        /// There are as many rows of inputs as the tiles are configured for, `stride` bytes apart, of which
        /// the 32 bytes from either pointer on are readable.
        #[inline(always)]
        pub(crate) unsafe fn multiply(
            &self,
            weights: &BlockWeights,
            [high, low]: [*const i8; 2],
            stride: usize,
            sums: &mut BlockSums,
        ) {
            // SAFETY: the caller's promise; the sums have room for four tiles.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "tileloadd tmm4, [{high} + {stride}]",
                    "tileloadd tmm6, [{weights} + {line}]",
                    "tileloadd tmm7, [{weights} + {line} + 512]",
                    "tileloadd tmm5, [{low} + {stride}]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tdpbssd tmm2, tmm5, tmm6",
                    "tdpbssd tmm3, tmm5, tmm7",
                    "tilestored [{sums} + {line}], tmm0",
                    "tilestored [{sums} + {line} + 1024], tmm1",
                    "tilestored [{sums} + {line} + 2048], tmm2",
                    "tilestored [{sums} + {line} + 3072], tmm3",
                    high = in(reg) high,
                    low = in(reg) low,
                    stride = in(reg) stride,
                    weights = in(reg) weights.0.as_ptr(),
                    line = in(reg) 64_usize,
                    sums = in(reg) sums.0.as_mut_ptr(),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, preserves_flags),
                );
            }
        }
    }

    /// Multiplies rows with panels of 32 outputs, each of `size` weights. Calls `emit(panel, row, sums)`.
    ///
    /// The rows have `size` / 32 numbers behind their start, a multiple of [`DEPTH`]. The caller has asked
    /// whether there are tiles.
    #[inline(always)]
    pub(crate) fn product(
        weights: &[i8],
        size: usize,
        inputs: Rows<'_>,
        mut emit: impl FnMut(usize, usize, &[i32; PANEL]),
    ) {
        let Rows { data, stride, start } = inputs;
        let (rows, width) = (data.len() / stride, size / PANEL);
        assert!(
            width.is_multiple_of(DEPTH) && width > 0 && start + width <= stride,
            "rows of another length"
        );
        assert!(
            weights.len().is_multiple_of(size) && data.len() == rows * stride,
            "not whole rows and panels"
        );
        let mut sums = [[0; PANEL]; 2 * ROWS];
        for first in (0..rows).step_by(2 * ROWS) {
            let count = (rows - first).min(2 * ROWS);
            let _tiles = Tiles::configure([count.min(ROWS), count.saturating_sub(ROWS).max(1)]);
            for (panel, weights) in weights.chunks_exact(size).enumerate() {
                let inputs = &data[first * stride + start..];
                // Without second rows their tile has one, which may be any: nobody asks for its sums.
                let second = if count > ROWS { &inputs[ROWS * stride..] } else { inputs };
                // SAFETY: the tiles have as many rows as there are from each slice on, and the inputs of each
                // are as long as the panel.
                unsafe { multiply(weights, [inputs, second].map(<[i8]>::as_ptr), stride, &mut sums) };
                for (row, sums) in sums[..count].iter().enumerate() {
                    emit(panel, first + row, sums);
                }
            }
        }
    }

    /// Computes the sums of two tiles of rows, each from its first row on.
    #[inline(always)]
    unsafe fn multiply(
        weights: &[i8],
        [first, second]: [*const i8; 2],
        stride: usize,
        sums: &mut [[i32; PANEL]; 2 * ROWS],
    ) {
        // SAFETY: the caller has configured the tiles for as many rows as there are, and the sums have room
        // for two tiles.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{first} + {stride}]",
                "tileloadd tmm6, [{weights} + {line}]",
                "tileloadd tmm7, [{weights} + {line} + 64]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{second} + {stride}]",
                "tdpbssd tmm1, tmm4, tmm7",
                "tdpbssd tmm2, tmm5, tmm6",
                "tdpbssd tmm3, tmm5, tmm7",
                "add {first}, 64",
                "add {second}, 64",
                "add {weights}, 2048",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {line}], tmm0",
                "tilestored [{sums} + {line} + 64], tmm1",
                "tilestored [{sums} + {line} + 2048], tmm2",
                "tilestored [{sums} + {line} + 2112], tmm3",
                first = inout(reg) first => _,
                second = inout(reg) second => _,
                stride = in(reg) stride,
                weights = inout(reg) weights.as_ptr() => _,
                line = in(reg) 4 * PANEL,
                steps = inout(reg) weights.len() / PANEL / DEPTH => _,
                sums = in(reg) sums.as_mut_ptr(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}
