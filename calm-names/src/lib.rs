//! One spelling for the variants of an enum and for what is counted, in flags, files and messages.

use std::fmt;

/// A name that nothing has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName {
    what: &'static str,
    name: String,
    known: Vec<&'static str>,
}

impl UnknownName {
    /// The error of looking for a `what` of this name where only those in `known` exist.
    pub fn new(what: &'static str, name: &str, known: impl IntoIterator<Item = &'static str>) -> Self {
        Self { what, name: name.to_owned(), known: known.into_iter().collect() }
    }
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown {} `{}`", self.what, self.name)?;
        match self.known.as_slice() {
            [] => Ok(()),
            [only] => write!(f, ": there is only {only}"),
            [first @ .., last] => write!(f, ": there are {} and {last}", first.join(", ")),
        }
    }
}

impl std::error::Error for UnknownName {}

/// A number with what it is the number of, in the plural unless there is one of it.
///
/// ```
/// assert_eq!(calm_names::counted(1, "unit"), "1 unit");
/// assert_eq!(calm_names::counted(0, "unit"), "0 units");
/// assert_eq!(calm_names::counted(2, "loss"), "2 losses");
/// ```
pub fn counted(count: usize, what: &str) -> String {
    let ending = match count {
        1 => "",
        _ if what.ends_with('s') => "es",
        _ => "s",
    };
    format!("{count} {what}{ending}")
}

/// Gives an enum of plain variants its names: `ALL`, `name()`, `Display`, `FromStr`, and the conversions
/// that serde's string form goes through (`#[serde(try_from = "String", into = "String")]`).
///
/// ```
/// #[derive(Debug, Clone, Copy, PartialEq)]
/// enum Side {
///     Left,
///     Right,
/// }
///
/// calm_names::names!(Side, "side", { Left => "left", Right => "right" });
///
/// assert_eq!("left".parse(), Ok(Side::Left));
/// let error = "top".parse::<Side>().unwrap_err();
/// assert_eq!(error.to_string(), "unknown side `top`: there are left and right");
/// ```
#[macro_export]
macro_rules! names {
    ($enum:ident, $what:literal, { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $enum {
            #[doc = concat!("Every ", $what, ".")]
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in flags, files and messages.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl ::std::fmt::Display for $enum {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl ::std::str::FromStr for $enum {
            type Err = $crate::UnknownName;

            fn from_str(name: &str) -> Result<Self, $crate::UnknownName> {
                match name {
                    $($name => Ok(Self::$variant),)+
                    _ => Err($crate::UnknownName::new($what, name, [$($name),+])),
                }
            }
        }

        impl TryFrom<String> for $enum {
            type Error = $crate::UnknownName;

            fn try_from(name: String) -> Result<Self, $crate::UnknownName> {
                name.parse()
            }
        }

        impl From<$enum> for String {
            fn from(value: $enum) -> String {
                value.name().to_owned()
            }
        }
    };
}
