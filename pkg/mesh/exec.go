package mesh

import "strings"

// ValidArgv reports whether a program and its arguments are within the bounds that
// a spec has too.
func ValidArgv(argv []string) error {
	total := 0
	for _, a := range argv {
		total += len(a)
		if strings.ContainsRune(a, 0) {
			return Errorf(Invalid, "an argument contains a NUL byte")
		}
	}
	if len(argv) == 0 || argv[0] == "" {
		return Errorf(Invalid, "no program is named")
	}
	if len(argv) > MaxArgs || total > MaxStrings {
		return Errorf(Invalid, "more than %d arguments or %d bytes", MaxArgs, MaxStrings)
	}
	return nil
}
