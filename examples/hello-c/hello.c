/*
 * A CGI service in C. With clang, lld and wasi-libc (Debian: clang lld wasi-libc
 * libclang-rt-dev-wasm32) it becomes a module of 30 kB:
 *
 *     clang --target=wasm32-wasi -O2 -s -o hello-c.wasm examples/hello-c/hello.c
 *     peerctl deploy hello-c.wasm --publish
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *get(const char *name)
{
	const char *value = getenv(name);
	return value ? value : "";
}

/* What the client sends is text to it, never markup: the answer is text/plain. */
int main(void)
{
	char buffer[4096];
	size_t n;

	printf("Content-Type: text/plain; charset=utf-8\r\n\r\n");
	if (strcmp(get("PATH_INFO"), "/echo") == 0) {
		while ((n = fread(buffer, 1, sizeof buffer, stdin)) > 0)
			fwrite(buffer, 1, n, stdout);
		return 0;
	}
	printf("Hello from C on a peer!\n%s %s on %s\n", get("REQUEST_METHOD"), get("PATH_INFO"), get("HTTP_HOST"));
	return 0;
}
