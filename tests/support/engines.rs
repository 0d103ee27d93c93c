//! [`for_both_engines`]: one body, a test for each engine of the kubectl
//! backend.

/// Makes a test of each of these functions for each engine: `command::NAME`
/// and, in a build that has it, `api::NAME`.
macro_rules! for_both_engines {
    ($test:meta: $($name:ident),+ $(,)?) => {
        mod command {
            use runcast_actors::settings::KubectlEngine::Command;
            $(
                #[$test]
                async fn $name() {
                    super::$name(Command).await;
                }
            )+
        }

        #[cfg(feature = "kubernetes-api")]
        mod api {
            use runcast_actors::settings::KubectlEngine::Api;
            $(
                #[$test]
                async fn $name() {
                    super::$name(Api).await;
                }
            )+
        }
    };
}

pub(crate) use for_both_engines;
