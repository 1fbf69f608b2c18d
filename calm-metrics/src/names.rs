/// Gives an enum its names: `ALL`, `name()`, `Display`, `FromStr`, and through them serde's string form
/// (`#[serde(try_from = "String", into = "String")]`).
macro_rules! named {
    ($enum:ident, $what:literal, { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $enum {
            #[doc = concat!("Every ", $what, ".")]
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name used in configurations.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $enum {
            type Err = crate::Error;

            fn from_str(name: &str) -> Result<Self, crate::Error> {
                Self::ALL.iter().copied().find(|candidate| candidate.name() == name).ok_or_else(|| {
                    let known: Vec<&str> = Self::ALL.iter().map(|known| known.name()).collect();
                    crate::Error::UnknownName { what: $what, name: name.to_owned(), known: known.join(", ") }
                })
            }
        }

        impl TryFrom<String> for $enum {
            type Error = crate::Error;

            fn try_from(name: String) -> Result<Self, crate::Error> {
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

pub(crate) use named;
