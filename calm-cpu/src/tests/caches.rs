use calm_checkpoint::CacheType;
use half::{bf16, f16};

use super::numbers;
use crate::attention::Heads;
use crate::caches::{CacheElement, KeysValues};

/// The bits of what a cache has at each of some positions.
fn entries<E: CacheElement>(cache: &KeysValues, positions: usize) -> Vec<[Vec<u32>; 2]> {
    let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(cache.keys::<E>().len(), cache.values::<E>().len());
    (0..positions).map(|position| cache.read(position).map(bits)).collect()
}

/// In any type, and between caches that have grown differently.
#[test]
fn what_is_read_and_written_again_is_the_same_to_the_last_bit() {
    fn check<E: CacheElement>(cache_type: CacheType) {
        let heads = Heads { count: 4, group: 2, d_kv: 5, scale: 1.0, cache_type };
        let (mut cache, mut copy) = (KeysValues::new(heads), KeysValues::new(heads));
        copy.clear(100);
        let width = heads.kv_inner();
        for position in 0..40 {
            let [mut key, value] = [0, 1].map(|part| numbers(width, 2 * position as u64 + part));
            // Too large for f16, where it becomes no number.
            key[3] = if position == 7 { 1e38 } else { key[3] };
            cache.write(position, &key, &value);
            let [read_key, read_value] = cache.read(position);
            let rounded = |numbers: &[f32]| -> Vec<u32> {
                numbers.iter().map(|&x| E::round(x).widen().to_bits()).collect()
            };
            assert_eq!(read_key.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), rounded(&key));
            assert_eq!(read_value.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), rounded(&value));
            copy.write(position, &read_key, &read_value);
        }
        assert_eq!(entries::<E>(&cache, 40), entries::<E>(&copy, 40), "{cache_type}");
    }
    check::<f32>(CacheType::F32);
    check::<f16>(CacheType::F16);
    check::<bf16>(CacheType::Bf16);
}
