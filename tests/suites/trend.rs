//! [`growth`]: by how much a measured value grew, whatever its noise.

/// Returns by how much `samples`, taken at even times, grew from the first to
/// the last: the median of the slopes between all pairs (Theil and Sen) times
/// the time between. A third of the samples may be far off without moving it.
pub(crate) fn growth(samples: &[f64]) -> f64 {
    let mut slopes = Vec::new();
    for (at, first) in samples.iter().enumerate() {
        for (steps, second) in samples[at..].iter().enumerate().skip(1) {
            slopes.push((second - first) / steps as f64);
        }
    }
    median(&mut slopes) * samples.len().saturating_sub(1) as f64
}

/// Returns the middle value, 0 of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_shows_through_noise_and_noise_is_no_leak() {
        let mut rng = fastrand::Rng::with_seed(1);
        let flat: Vec<f64> = (0..100).map(|_| 1000.0 + 50.0 * rng.f64()).collect();
        assert!(growth(&flat).abs() < 20.0, "{}", growth(&flat));
        let leak = |(n, value)| value + n as f64;
        let leaking: Vec<f64> = flat.iter().enumerate().map(leak).collect();
        assert!(
            (growth(&leaking) - 99.0).abs() < 20.0,
            "{}",
            growth(&leaking)
        );
        let mut spiky = flat;
        spiky
            .iter_mut()
            .step_by(5)
            .for_each(|value| *value += 5000.0 * rng.f64());
        assert!(growth(&spiky).abs() < 20.0, "{}", growth(&spiky));
    }
}
