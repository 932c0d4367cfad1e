// Build all views of the page.

buildPrompt();
buildImage();
lookFrom(null);
buildWords();
buildBlocks();
buildModes();
buildColors();
buildControls();
setMode(state.mode);
setFrame(state.frame);
