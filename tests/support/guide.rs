//! The blocks of `docs/operations.md`, so that what it shows is what was tried.

/// Returns the block of the operations guide in `language`.
pub(crate) fn guide_block(language: &str) -> &'static str {
    let guide = include_str!("../../docs/operations.md");
    let (_, block) = guide
        .split_once(&format!("```{language}\n"))
        .expect("the guide has one");
    let (block, _) = block.split_once("```").expect("it ends");
    block
}
