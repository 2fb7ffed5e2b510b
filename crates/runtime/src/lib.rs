//! Containers: images, filesystems, namespaces, cgroups, exec, logs. Carries out the kubelet's ops.

pub mod image;
