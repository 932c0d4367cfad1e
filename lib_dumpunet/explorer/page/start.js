// Build the page, view by view.

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
