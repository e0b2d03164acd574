// swift-tools-version: 6.2
import PackageDescription

// One settings array for every Swift target; `safe` also forbids unsafe code outside `Tensors` and
// `HDF5Store`. The direction of imports is checked in CI by
// `--explicit-target-dependency-import-check error`.
let strict: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .treatAllWarnings(as: .error),
]
let safe = strict + [.strictMemorySafety()]
let lifetimes: [SwiftSetting] = strict + [.enableExperimentalFeature("Lifetimes")]

let openBLAS: [SystemPackageProvider] = [.apt(["libopenblas-dev"]), .brew(["openblas"])]
let hdf5: [SystemPackageProvider] = [.apt(["libhdf5-dev"]), .brew(["hdf5"])]
let argumentParser: Target.Dependency = .product(
  name: "ArgumentParser", package: "swift-argument-parser")
let orderedCollections: Target.Dependency = .product(
  name: "OrderedCollections", package: "swift-collections")
let realModule: Target.Dependency = .product(name: "RealModule", package: "swift-numerics")

/// A study of its own: a program that imports the library and nothing else.
func example(_ name: String) -> Target {
  .executableTarget(
    name: "example-\(name)", dependencies: ["NormLens"], path: "examples/\(name)",
    swiftSettings: strict)
}

let package = Package(
  name: "NormLens",
  platforms: [.macOS(.v26)],
  products: [
    .library(name: "NormLens", targets: ["NormLens"]),
    .executable(name: "normlens", targets: ["NormLensMain"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-numerics", from: "1.1.0"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
  ],
  targets: [
    .systemLibrary(name: "COpenBLAS", pkgConfig: "openblas", providers: openBLAS),
    .systemLibrary(name: "CHDF5", pkgConfig: "hdf5", providers: hdf5),
    .target(name: "CHDF5Guard", dependencies: ["CHDF5"]),
    .target(name: "CKernels", linkerSettings: [.linkedLibrary("m")]),

    .target(
      name: "Tensors", dependencies: ["COpenBLAS", "CKernels", realModule],
      swiftSettings: lifetimes),
    .target(name: "Results", dependencies: [orderedCollections], swiftSettings: safe),
    .target(
      name: "HDF5Store",
      dependencies: ["CHDF5", "CHDF5Guard", "Tensors", "Results", orderedCollections],
      swiftSettings: strict),
    .target(name: "HookedGPT2", dependencies: ["Tensors"], swiftSettings: safe),
    .target(
      name: "Analyses",
      dependencies: ["HookedGPT2", "Results", "Tensors", orderedCollections, realModule],
      swiftSettings: safe),
    .target(
      name: "Reporting", dependencies: ["Results", orderedCollections], swiftSettings: safe,
      plugins: ["EmbedText"]),
    .plugin(name: "EmbedText", capability: .buildTool(), dependencies: ["EmbedTextTool"]),
    .executableTarget(name: "EmbedTextTool", swiftSettings: strict),
    .target(
      name: "NormLens",
      dependencies: [
        "Tensors", "Results", "HDF5Store", "HookedGPT2", "Analyses", "Reporting",
        orderedCollections,
      ],
      swiftSettings: safe),
    .target(
      name: "NormLensCommands", dependencies: ["NormLens", argumentParser], swiftSettings: safe),
    .executableTarget(
      name: "NormLensMain", dependencies: ["NormLensCommands"], swiftSettings: safe),

    example("ablate-head"),
    example("frozen-scale"),
    example("ioi"),
    example("layernorm-questions"),
    example("relp-vs-attribution"),
    example("unselectable-keys"),
    example("what-layernorm-does"),

    .target(
      name: "TestSupport", dependencies: ["NormLens"], path: "Tests/TestSupport",
      swiftSettings: strict),
    .testTarget(
      name: "TensorsTests", dependencies: ["Tensors", "CKernels", "NormLens", "TestSupport"],
      swiftSettings: strict),
    .testTarget(
      name: "HDF5StoreTests",
      dependencies: ["CHDF5", "HDF5Store", "Tensors", "Results", "TestSupport"],
      swiftSettings: strict),
    .testTarget(
      name: "HookedGPT2Tests", dependencies: ["NormLens", "TestSupport"],
      swiftSettings: strict),
    .testTarget(
      name: "AnalysesTests", dependencies: ["NormLens", "TestSupport"], swiftSettings: strict),
    .testTarget(
      name: "NormLensTests", dependencies: ["NormLens", "TestSupport", orderedCollections],
      exclude: ["SVG"], swiftSettings: strict),
    .testTarget(
      name: "CommandTests", dependencies: ["NormLens", "NormLensMain", "TestSupport"],
      exclude: ["Snapshots"], swiftSettings: strict),
  ],
  cLanguageStandard: .c17
)
