//! [`defaults`]: a plan as the command line has it without arguments.

/// Returns `A` as parsed from no argument at all.
pub(crate) fn defaults<A: clap::Args>() -> A {
    #[derive(clap::Parser)]
    struct Cli<A: clap::Args> {
        #[command(flatten)]
        plan: A,
    }
    let Cli { plan } = clap::Parser::parse_from(["defaults"]);
    plan
}
