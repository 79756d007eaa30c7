fn main() {
    std::process::exit(stacker::cli::main(std::env::args_os()))
}
