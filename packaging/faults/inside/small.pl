#!/usr/bin/perl
# One of a thousand workers: small, quick to start, and there is nothing it can get wrong. Each path answers with its version.
use strict;
use warnings;
use Socket;

open my $file, '<', 'version' or die "version: $!\n";
chomp( my $version = <$file> );
close $file;

open my $listener, '+<&=', 3 or die "file descriptor 3: $!\n";
my $ends = 0;
local $SIG{TERM} = sub { $ends = 1; close $listener };
local $SIG{PIPE} = 'IGNORE';
while ( !$ends && accept my $client, $listener ) {
    my $head = '';
    while ( $head !~ /\r\n\r\n/ ) {
        sysread $client, $head, 16_384, length $head or last;
    }
    my $length = 1 + length $version;
    syswrite $client, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: $length\r\nConnection: close\r\n\r\n$version\n";
    close $client;
}
