//! Variables that are not shown, and come back from a caller who reads a spec, changes it and writes it.

use crate::{
    openclaw::environment::restore,
    spec::{FieldPath, InstanceSpec, Violation},
};

/// What a caller sends back of what was not shown to it is what `now` has.
pub(crate) fn restored(
    mut spec: InstanceSpec,
    now: Option<&InstanceSpec>,
) -> Result<InstanceSpec, Vec<Violation>> {
    match restore(&mut spec.env, now.map(|now| &now.env)) {
        Ok(()) => Ok(spec),
        Err(name) => Err(vec![Violation {
            path: FieldPath::of(&["env", &name]),
            message: format!("`{name}` has no value that could be kept"),
            mend: "send its value".to_owned(),
        }]),
    }
}
