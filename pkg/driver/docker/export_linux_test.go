package docker

// Become is what the process that copies gives up.
var Become = become
