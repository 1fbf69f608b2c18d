//! The objective of FREE (Bae et al., EMNLP 2023): two exits, and distillation from layers spread over the
//! whole decoder to the layers up to the shallow exit.
//!
//! The loss is `(S CE_S + L CE_L) / (S + L) + alpha L_KD`, with `L_KD` the mean over teachers t of the mean
//! square of H_t - H_s(t). H are the states behind the final norm, which all exits share, without the factor
//! of a tied head and without dropout; those of teachers are constants. This is the loss
//! `shallowdeep_kd_dyna` of the published code (raymin0223/fast_robust_early_exit, `util/losses.py`), which
//! takes the mean over padding too; here it is over target tokens, as that of every other loss.

use tch::{Kind, Tensor};

use crate::config::{LayerMapping, ShallowDeepConfig};

/// The layers that teach, from 1 and ascending: as many as there are students, the last layer among them.
///
/// They are `ceil(k L / S)` for k = 1..S, which are the published subsets for 24 layers with S = 4, 6, 8, 12
/// and for 12 with S = 3. For 24 layers with S = 10 the published subset is another.
pub fn teacher_layers(layers: usize, shallow: usize) -> Vec<usize> {
    match (layers, shallow) {
        (24, 10) => vec![3, 6, 8, 11, 13, 16, 18, 20, 22, 24],
        _ => (1..=shallow).map(|k| (k * layers).div_ceil(shallow.max(1))).collect(),
    }
}

/// Chooses a student for each teacher: `distances` [teachers, students] -> 1 where a student is chosen, 0
/// elsewhere.
///
/// From the last teacher to the first, each takes the nearest of the students below the one that was taken
/// before, the first of them among equals, and the same one again where there is none below. Nothing waits
/// for the device.
pub fn choose_students(distances: &Tensor) -> Tensor {
    let (teachers, students) = distances.size2().unwrap_or((0, 0));
    let device = distances.device();
    let numbers = Tensor::arange(students, (Kind::Int64, device));
    let mut before = Tensor::full([1], students, (Kind::Int64, device));
    let mut chosen = Vec::new();
    for teacher in (0..teachers).rev() {
        let taken = numbers.ge_tensor(&before);
        let nearest = distances.get(teacher).masked_fill(&taken, f64::INFINITY).argmin(-1, false);
        // Below the first student there is none.
        before = nearest.view([1]).where_self(&before.gt(0), &before);
        chosen.push(numbers.eq_tensor(&before));
    }
    chosen.reverse();
    Tensor::stack(&chosen, 0).to_kind(Kind::Float)
}

/// The gradients of `alpha L_KD` with respect to students' states, by their layers from 1.
///
/// `states` are H of all layers, [tokens, d_model] each, of which nothing is differentiated. The mean is over
/// `step_tokens` tokens.
pub fn distillation_gradients(
    config: &ShallowDeepConfig,
    states: &[Tensor],
    step_tokens: usize,
) -> Vec<(usize, Tensor)> {
    let _no_grad = tch::no_grad_guard();
    let (layers, shallow) = (states.len(), config.layer);
    let (teachers, students) = match config.mapping {
        LayerMapping::Last => (vec![layers], vec![shallow]),
        LayerMapping::Dynamic | LayerMapping::Uniform => {
            (teacher_layers(layers, shallow), (1..=shallow).collect())
        }
    };
    let of_layers = |layers: &[usize]| {
        let states: Vec<&Tensor> = layers.iter().map(|&layer| &states[layer - 1]).collect();
        Tensor::stack(&states, 0).to_kind(Kind::Float)
    };
    let (teacher_states, student_states) = (of_layers(&teachers), of_layers(&students));
    let weights = match config.mapping {
        LayerMapping::Dynamic => choose_students(&distances(&teacher_states, &student_states)),
        LayerMapping::Uniform | LayerMapping::Last => {
            Tensor::eye(students.len() as i64, (Kind::Float, teacher_states.device()))
        }
    };
    let d_model = student_states.size()[2];
    let scale = 2.0 * config.distillation / (teachers.len() * step_tokens) as f64 / d_model as f64;
    // d / d H_s of the sum over t of w[t, s] |H_s - H_t|^2 is 2 (sum over t of w[t, s]) H_s - 2 sum w[t, s]
    // H_t. [students, teachers] x [teachers, tokens * d_model] -> [students, tokens, d_model]
    let pulls = weights.transpose(0, 1).matmul(&teacher_states.flatten(1, 2)).view_as(&student_states);
    let counts = weights.sum_dim_intlist([0i64].as_slice(), false, Kind::Float).view([-1, 1, 1]);
    let gradients = (student_states * counts - pulls) * scale;
    students.into_iter().zip(gradients.unbind(0)).collect()
}

/// Mean squares of differences: [teachers, tokens, d_model], [students, tokens, d_model] -> [teachers,
/// students]
fn distances(teachers: &Tensor, students: &Tensor) -> Tensor {
    let rows: Vec<Tensor> = teachers
        .unbind(0)
        .iter()
        .map(|teacher| (students - teacher).square().mean_dim([1i64, 2].as_slice(), false, Kind::Float))
        .collect();
    Tensor::stack(&rows, 0)
}
