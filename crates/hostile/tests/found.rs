//! Every target over its examples, over what fuzzing has found (`found/<target>/<a word for it>`), and over changed examples:
//! `EKSO_HOSTILE_ROUNDS` says how many of each.

use std::path::Path;

use hostile::{TARGETS, Target};

#[test]
fn nothing_that_was_found_is_lost() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    for target in TARGETS {
        for example in target.examples {
            (target.run)(example);
        }
        for entry in std::fs::read_dir(found.join(target.name)).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let input = std::fs::read(&path).expect("an input");
            println!("{}", path.display());
            (target.run)(&input);
        }
    }
    for folder in std::fs::read_dir(&found).into_iter().flatten() {
        let name = folder.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(hostile::target(&name).is_some(), "found/{name} is of no target");
    }
}

/// Numbers from a seed: a failure repeats.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

/// Cuts, doubles, flips, overwrites, and puts in what other examples have.
fn change(target: &Target, example: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = example.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        let end = (at + numbers.below(24)).min(bytes.len());
        match numbers.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let part = bytes[at..end].repeat(1 + numbers.below(40));
                bytes.splice(at..at, part);
            }
            3 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            4 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'-', b'"', b'{'][numbers.below(8)],
            _ => {
                let other = target.examples[numbers.below(target.examples.len())];
                let from = numbers.below(other.len());
                let to = (from + 1 + numbers.below(24)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn changed_examples_are_read_or_refused() {
    let rounds =
        std::env::var("EKSO_HOSTILE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200_u64);
    for target in TARGETS {
        let rounds = if target.is_slow { rounds / 50 } else { rounds };
        for (index, example) in target.examples.iter().enumerate() {
            for round in 0..rounds {
                let mut numbers = Numbers((index as u64) << 32 | round);
                let input = change(target, example, &mut numbers);
                println!("{} {index} {round} {:?}", target.name, String::from_utf8_lossy(&input));
                (target.run)(&input);
            }
        }
    }
}
