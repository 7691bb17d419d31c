package wasi

// functions are all that a guest may import of WASI, by the capability that they
// belong to. A guest without a capability may import its functions all the same,
// as most programs do; they then find nothing to work on.
var functions = []function{
	{"args_get", Arguments, "ii", 16, argsGet},
	{"args_sizes_get", Arguments, "ii", 16, argsSizesGet},
	{"environ_get", Environment, "ii", 16, environGet},
	{"environ_sizes_get", Environment, "ii", 16, environSizesGet},

	{"clock_res_get", Clock, "ii", 16, clockResGet},
	{"clock_time_get", Clock, "iIi", 16, clockTimeGet},
	{"poll_oneoff", Clock, "iiii", 64, pollOneoff},
	{"sched_yield", Clock, "", 64, schedYield},

	{"random_get", Random, "ii", 64, randomGet},

	{"proc_exit", Exit, "i", 0, nil},
	{"proc_raise", Exit, "i", 16, unsupported},

	{"fd_read", Streams, "iiii", 64, fdRead},
	{"fd_write", Streams, "iiii", 64, fdWrite},
	{"fd_close", Streams, "i", 16, fdClose},
	{"fd_fdstat_get", Streams, "ii", 16, fdStatGet},
	{"fd_fdstat_set_flags", Streams, "ii", 16, fdStatSetFlags},
	{"fd_fdstat_set_rights", Streams, "iII", 16, fdStatSetRights},
	{"fd_renumber", Streams, "ii", 16, fdRenumber},

	{"fd_advise", Files, "iIIi", 16, fdAdvise},
	{"fd_allocate", Files, "iII", 64, fdAllocate},
	{"fd_datasync", Files, "i", 16, fdSync},
	{"fd_filestat_get", Files, "ii", 16, fdFilestatGet},
	{"fd_filestat_set_size", Files, "iI", 64, fdFilestatSetSize},
	{"fd_filestat_set_times", Files, "iIIi", 16, fdFilestatSetTimes},
	{"fd_pread", Files, "iiiIi", 64, fdPread},
	{"fd_prestat_dir_name", Files, "iii", 16, fdPrestatDirName},
	{"fd_prestat_get", Files, "ii", 16, fdPrestatGet},
	{"fd_pwrite", Files, "iiiIi", 64, fdPwrite},
	{"fd_readdir", Files, "iiiIi", 64, fdReaddir},
	{"fd_seek", Files, "iIii", 16, fdSeek},
	{"fd_sync", Files, "i", 16, fdSync},
	{"fd_tell", Files, "ii", 16, fdTell},
	{"path_create_directory", Files, "iii", pathCost, pathCreateDirectory},
	{"path_filestat_get", Files, "iiiii", pathCost, pathFilestatGet},
	{"path_filestat_set_times", Files, "iiiiIIi", pathCost, pathFilestatSetTimes},
	{"path_link", Files, "iiiiiii", pathCost, pathLink},
	{"path_open", Files, "iiiiiIIii", pathCost, pathOpen},
	{"path_readlink", Files, "iiiiii", pathCost, pathReadlink},
	{"path_remove_directory", Files, "iii", pathCost, pathRemoveDirectory},
	{"path_rename", Files, "iiiiii", pathCost, pathRename},
	{"path_symlink", Files, "iiiii", pathCost, pathSymlink},
	{"path_unlink_file", Files, "iii", pathCost, pathUnlinkFile},

	{"sock_accept", Listen, "iii", 64, sockAccept},
	{"sock_recv", Listen, "iiiiii", 64, sockRecv},
	{"sock_send", Listen, "iiiii", 64, sockSend},
	{"sock_shutdown", Listen, "ii", 64, sockShutdown},
}

// pathCost is charged for a path besides its length: it may lead through
// directories of thousands of names.
const pathCost = 256

// The names of the capabilities.
const (
	Arguments   = "arguments"
	Environment = "environment"
	Streams     = "streams"
	Clock       = "clock"
	Random      = "random"
	Exit        = "exit"
	Files       = "files"
	Listen      = "listen"
	Network     = "network"
)

// Capability is one thing of the world that a guest may have.
type Capability struct {
	Name    string
	Default string // without a word in the spec
	Given   string // how there is more
	Bounds  string
}

// Capabilities is all that there is. docs/capabilities.md has the same table, and a
// test holds them together.
var Capabilities = []Capability{
	{Arguments, "the workload's name", "what the spec passes", "256 of them, 64 KiB with the environment"},
	{Environment, "empty; of a service, CGI's description of the request", "what the spec passes", "256 variables, 64 KiB with the arguments"},
	{Streams, "input, output and errors of a job; of a service, body, answer and log", "-", "as large as they are, never held in memory; the log 2 MiB; 2,048 descriptors"},
	{Clock, "monotonic; the wall clock begins at 2026-01-01; of a job, both run on fuel", "`--clock wall`, and `observe` in the grant", "a microsecond; a wait ends with the guest's time"},
	{Random, "the system's; of a job, from its seed", "-", "a unit of fuel a byte"},
	{Exit, "its status", "-", "-"},
	{Files, "none", "`--scratch 16M`: a private directory in memory, gone at the end", "its size, at most 256 MiB, counted as memory; 64 to 8,192 files by size"},
	{Listen, "nothing", "`--serve`: descriptor 3, to which peerd alone connects", "the service's concurrency; 64 KiB in flight each way"},
	{Network, "none", "`--allow-host api.example.org:443`, and `egress allow` in the grant: HTTP requests, made by peerd", "1 MiB there, 4 MiB back, 30 s, 8 at a time; public addresses only, each hop of a redirect looked at"},
}
