//! Which of two versions is the better one: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#version-priority>

/// Greater is better: `v2`, `v1`, then betas, then alphas, then everything else backwards by its name.
pub fn version_rank(version: &str) -> (u8, u32, u32, std::cmp::Reverse<&str>) {
    let name = std::cmp::Reverse(version);
    let parse = || {
        let text = version.strip_prefix('v')?;
        let number = |text: &str| text.parse::<u32>().ok().filter(|_| !text.starts_with('0'));
        if let Some((major, minor)) = text.split_once("beta") {
            return Some((2, number(major)?, number(minor)?));
        }
        match text.split_once("alpha") {
            Some((major, minor)) => Some((1, number(major)?, number(minor)?)),
            None => Some((3, number(text)?, 0)),
        }
    };
    let (stability, major, minor) = parse().unwrap_or((0, 0, 0));
    (stability, major, minor, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_best_first() {
        let mut versions = ["foo10", "v1alpha1", "v10", "v1", "v11beta2", "foo1", "v2beta1", "v2", "v1beta2"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v11beta2", "v2beta1", "v1beta2", "v1alpha1", "foo1", "foo10"]
        );
    }
}
