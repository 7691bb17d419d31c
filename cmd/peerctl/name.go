package main

import (
	"path/filepath"
	"strings"

	"peercompute/pkg/mesh"
)

// imageName derives a workload's name from an image reference: its last part,
// without tag and digest.
func imageName(image string) string {
	image, _, _ = strings.Cut(image, "@")
	image = image[strings.LastIndexByte(image, '/')+1:]
	image, _, _ = strings.Cut(image, ":")
	return labelOf(image)
}

// dirName derives a workload's name from the directory that it is built from.
func dirName(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return labelOf(filepath.Base(dir))
}

// moduleName derives a workload's name from the base name of its file.
func moduleName(file string) string {
	if i := len(file) - len(".wasm"); i >= 0 && strings.EqualFold(file[i:], ".wasm") {
		file = file[:i]
	}
	return labelOf(file)
}

// labelOf makes a DNS label of any text; "app" if nothing of it can be used.
func labelOf(text string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(text) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else if b.Len() > 0 && !strings.HasSuffix(b.String(), "-") {
			b.WriteByte('-')
		}
	}
	label := b.String()
	label = strings.TrimRight(label[:min(len(label), mesh.MaxName)], "-")
	if label == "" {
		return "app"
	}
	return label
}
