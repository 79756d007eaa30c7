fn main() {
    std::process::exit(stacker::cli::main(std::env::args_os()))
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
